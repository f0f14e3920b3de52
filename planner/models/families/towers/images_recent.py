"""Vision towers of newer families: GLM-OCR and GLM-5.3, LFM3-VL."""

from ...config_fields import Fields
from ...spec import Role
from ...tensor_list import Tensors
from .vision import patches


def glm_ocr(f: Fields, t: Tensors) -> None:
    """GLM-OCR's and GLM-5.3's: gated FFNs with biases, norms over each head, no positions."""
    width, out = f.count("hidden_size"), f.count("out_hidden_size")
    channels, patch = patches(f, "in_channels")
    frames, merge = f.count("temporal_patch_size"), f.count("spatial_merge_size")
    bias, inner = f.flag("attention_bias"), f.count("intermediate_size")
    head = width // f.count("num_heads")
    t.add("patch_embed.proj.weight", (width, channels, frames, patch, patch), Role.CONV)
    t.add("patch_embed.proj.bias", (width,), Role.BIAS)
    with t.scope("blocks.*.", f.layers("depth")):
        t.linear("attn.qkv", width, 3 * width, bias)
        t.linear("attn.proj", width, width, bias)
        for name, size in (("norm1", width), ("norm2", width), ("attn.q_norm", head)):
            t.norm(name, size)
        t.norm("attn.k_norm", head)
        t.linear("mlp.gate_proj", width, inner, bias)
        t.linear("mlp.up_proj", width, inner, bias)
        t.linear("mlp.down_proj", inner, width, bias)
    # GLM-OCR's merger is as wide as its image tokens' channels, GLM-5.3 says how wide.
    middle = f.count("projection_intermediate_size", out * channels)
    with t.scope("merger."):
        t.linear("proj", out, out)
        t.norm("post_projection_norm", out, True)
        t.linear("gate_proj", out, middle)
        t.linear("up_proj", out, middle)
        t.linear("down_proj", middle, out)
    t.add("downsample.weight", (out, width, merge, merge), Role.CONV)
    t.add("downsample.bias", (out,), Role.BIAS)
    t.norm("post_layernorm", width)


def lfm3(f: Fields, t: Tensors) -> None:
    """LFM3-VL: its decoder's kinds of layers over patches, the convolutions in two axes."""
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch = patches(f, "in_channels")
    frames, kernel = f.count("temporal_patch_size"), f.count("conv_kernel_size")
    query, kv = f.count("num_attention_heads"), f.count("num_key_value_heads")
    head = width // query
    kinds = f.texts("layer_types", f.layers()) or ()
    t.add("patch_embed.weight", (width, channels * frames * patch * patch), Role.LINEAR)
    t.norm("embedding_norm", width)
    with t.scope("layers.*.", len(kinds)):
        for name, sizes in (("w1", (width, inner)), ("w3", (width, inner)), ("w2", (inner, width))):
            t.linear(f"feed_forward.{name}", *sizes)
        t.norm("operator_norm", width)
        t.norm("ffn_norm", width)
    with t.scope("layers.*.conv.", kinds.count("conv")):
        t.linear("in_proj", width, 3 * width)
        t.add("spatial_conv.weight", (width, 1, kernel, kernel), Role.CONV)
        t.linear("out_proj", width, width)
    with t.scope("layers.*.self_attn.", len(kinds) - kinds.count("conv")):
        t.linear("q_proj", width, query * head)
        t.linear("k_proj", width, kv * head)
        t.linear("v_proj", width, kv * head)
        t.linear("out_proj", query * head, width)
        t.norm("q_norm", head)
        t.norm("k_norm", head)


def lfm3_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width = v.count("hidden_size")
    merged = width * v.count("spatial_merge_size") ** 2
    middle, bias = f.count("projector_hidden_size"), f.flag("projector_bias", True)
    t.norm("layer_norm", width, True)
    t.linear("linear_1", merged, middle, bias)
    t.linear("linear_2", middle, text.count("hidden_size"), bias)
