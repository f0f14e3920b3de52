"""Further vision towers: Llama 4, GLM-4.5V, Kimi K2.5, MiniMax M3, Step 3.7."""

from ...config_fields import Fields
from ...spec import Role
from ...tensor_list import Tensors
from .vision import encoder_layers, patches, siglip_head


def llama4(f: Fields, t: Tensors) -> None:
    """Llama 4: patches unfolded, a class token, and an adapter over shuffled pixels."""
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch = patches(f)
    side = f.count("image_size") // patch
    t.add("class_embedding", (width,), Role.OTHER)
    t.add("positional_embedding_vlm", (side * side + 1, width), Role.EMBEDDING)
    t.linear("patch_embedding.linear", channels * patch * patch, width)
    encoder_layers(
        t,
        "model.layers.*.",
        f.layers(),
        width,
        inner,
        names=("q_proj", "k_proj", "v_proj", "o_proj"),
        norms=("input_layernorm", "post_attention_layernorm"),
    )
    t.norm("layernorm_pre", width, True)
    t.norm("layernorm_post", width, True)
    out = f.count("projector_output_dim")
    t.linear("vision_adapter.mlp.fc1", inner, f.count("projector_input_dim"))
    t.linear("vision_adapter.mlp.fc2", out, out)


def llama4_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    t.linear("linear_1", v.count("vision_output_dim"), text.count("hidden_size"))


def glm4v(f: Fields, t: Tensors) -> None:
    """GLM-4.1V to 4.6V: RMS norms, a gated FFN of the output's width, a convolution that merges."""
    width, out = f.count("hidden_size"), f.count("out_hidden_size")
    channels, patch = patches(f, "in_channels")
    frames, merge = f.count("temporal_patch_size"), f.count("spatial_merge_size")
    side = f.count("image_size") // patch
    bias = f.flag("attention_bias")
    t.embedding("embeddings.position_embedding", side * side, width)
    t.add("patch_embed.proj.weight", (width, channels, frames, patch, patch), Role.CONV)
    t.add("patch_embed.proj.bias", (width,), Role.BIAS)
    with t.scope("blocks.*.", f.layers("depth")):
        t.linear("attn.qkv", width, 3 * width, bias)
        t.linear("attn.proj", width, width)
        t.norm("norm1", width)
        t.norm("norm2", width)
        t.linear("mlp.gate_proj", width, out)
        t.linear("mlp.up_proj", width, out)
        t.linear("mlp.down_proj", out, width)
    inner = f.count("intermediate_size")
    with t.scope("merger."):
        t.linear("proj", out, out)
        t.norm("post_projection_norm", out, True)
        t.linear("gate_proj", out, inner)
        t.linear("up_proj", out, inner)
        t.linear("down_proj", inner, out)
    t.norm("post_conv_layernorm", width)
    t.add("downsample.weight", (out, width, merge, merge), Role.CONV)
    t.add("downsample.bias", (out,), Role.BIAS)
    t.norm("post_layernorm", width)


_KIMI_SIDES = ("pos_emb_height", "pos_emb_width")


def _kimi(f: Fields, name: str) -> int:
    """The published file calls its tower's sizes `vt_...`."""
    return f.count(f"vt_{name}") if f.has(f"vt_{name}") else f.count(name)


def kimi(f: Fields, t: Tensors) -> None:
    """Kimi's MoonViT."""
    width, patch = _kimi(f, "hidden_size"), f.count("patch_size")
    published = f.has("init_pos_emb_height")
    sides = ("init_pos_emb_height", "init_pos_emb_width") if published else _KIMI_SIDES
    rows, columns = f.count(sides[0]), f.count(sides[1])
    t.add("patch_embed.proj.weight", (width, 3, patch, patch), Role.CONV)
    t.add("patch_embed.proj.bias", (width,), Role.BIAS)
    t.add("patch_embed.pos_emb.position_embeddings", (rows, columns, width), Role.EMBEDDING)
    encoder_layers(
        t,
        "layers.*.",
        _kimi(f, "num_hidden_layers"),
        width,
        _kimi(f, "intermediate_size"),
        attention="attn.",
        names=("q_proj", "k_proj", "v_proj", "proj"),
        norms=("norm1", "norm2"),
    )
    t.norm("final_layernorm", width, True)


def kimi_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width = _kimi(v, "hidden_size")
    kernel = v.counts("merge_kernel_size", 2, low=1) or (2, 2)
    merged = width * kernel[0] * kernel[1]
    t.norm("pre_norm", width, True)
    t.linear("in_proj", merged, merged, True)
    t.linear("out_proj", merged, text.count("hidden_size"), True)


def minimax_m3(f: Fields, t: Tensors) -> None:
    width = f.count("hidden_size")
    channels, patch = patches(f)
    frames = f.count("temporal_patch_size")
    t.add("embeddings.proj.weight", (width, channels, frames, patch, patch), Role.CONV)
    t.norm("pre_layrnorm", width, True)
    encoder_layers(t, "layers.*.", f.layers(), width, f.count("intermediate_size"))


def minimax_m3_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    out = text.count("hidden_size")
    middle = f.count("projector_hidden_size")
    merged = out * v.count("spatial_merge_size") ** 2
    t.linear("linear_1", v.count("hidden_size"), middle, True)
    t.linear("linear_2", middle, out, True)
    t.linear("merge_linear_1", merged, middle, True)
    t.linear("merge_linear_2", middle, out, True)


def step(f: Fields, t: Tensors) -> None:
    """Step 3.7: a plain encoder with layer scales, twice downsampled by convolutions."""
    width = f.count("hidden_size")
    channels, patch = patches(f)
    side = f.count("image_size") // patch
    ratio = f.number("mlp_ratio") or 1.0
    t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
    t.embedding("embeddings.position_embedding", side * side, width)
    t.norm("pre_layernorm", width, True)
    encoder_layers(
        t,
        "layers.*.",
        f.layers(),
        width,
        max(1, int(width * ratio)),
        norms=("layernorm_before", "layernorm_after"),
    )
    with t.scope("layers.*.", f.layers()):
        t.add("lambda_1", (width,), Role.OTHER)
        t.add("lambda_2", (width,), Role.OTHER)
    for name, inputs in (("downsampler1", width), ("downsampler2", 2 * width)):
        t.add(f"{name}.weight", (2 * inputs, inputs, 3, 3), Role.CONV)
        t.add(f"{name}.bias", (2 * inputs,), Role.BIAS)


def step_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    t.linear("multi_modal_projector", 4 * v.count("hidden_size"), text.count("hidden_size"))


def internvl(f: Fields, t: Tensors) -> None:
    internvit(f, t, "encoder.layer.*.", masked=f.flag("use_mask_token"))


def internvit(
    f: Fields, t: Tensors, layers: str, *, masked: bool = False, default: bool = False
) -> None:
    """InternViT: layer scales, a class token, norms over whole q and k where `use_qk_norm`.

    `default`: of the switches for positions and for pooling.
    """
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch, image = f.count("num_channels"), pair(f, "patch_size"), pair(f, "image_size")
    count = (image[0] // patch[0]) * (image[1] // patch[1])
    t.add("embeddings.cls_token", (1, 1, width), Role.OTHER)
    if masked:
        t.add("embeddings.mask_token", (1, 1, width), Role.OTHER)
    if f.flag("use_absolute_position_embeddings", default):
        t.add("embeddings.position_embeddings", (1, count + 1, width), Role.EMBEDDING)
    name = "embeddings.patch_embeddings.projection"
    t.add(f"{name}.weight", (width, channels, *patch), Role.CONV)
    t.add(f"{name}.bias", (width,), Role.BIAS)
    bias, norm_bias = f.flag("attention_bias"), f.text("norm_type", "layer_norm") == "layer_norm"
    with t.scope(layers, f.layers()):
        t.add("lambda_1", (width,), Role.OTHER)
        t.add("lambda_2", (width,), Role.OTHER)
        for part in ("q_proj", "k_proj", "v_proj"):
            t.linear(f"attention.{part}", width, width, bias)
        t.linear("attention.projection_layer", width, width, True)
        if f.flag("use_qk_norm"):
            t.norm("attention.q_norm", width)
            t.norm("attention.k_norm", width)
        t.linear("mlp.fc1", width, inner, True)
        t.linear("mlp.fc2", inner, width, True)
        t.norm("layernorm_before", width, norm_bias)
        t.norm("layernorm_after", width, norm_bias)
    if not f.flag("use_mean_pooling", default):
        t.norm("layernorm", width, True)


def pair(f: Fields, name: str) -> tuple[int, int]:
    """A size that is one number or (height, width)."""
    value = f.raw.get(name, f.defaults.get(name))
    if isinstance(value, list):
        height, width = f.counts(name, 2, low=1) or (1, 1)
        return height, width
    size = f.count(name)
    return size, size


def idefics(f: Fields, t: Tensors) -> None:
    """Idefics 3 and SmolVLM: SigLIP without its head, patches that may leave a rest."""
    width = f.count("hidden_size")
    channels, patch = patches(f)
    side = f.count("image_size") // patch
    t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
    t.add("embeddings.patch_embedding.bias", (width,), Role.BIAS)
    t.embedding("embeddings.position_embedding", side * side, width)
    encoder_layers(t, "encoder.layers.*.", f.layers(), width, f.count("intermediate_size"))
    t.norm("post_layernorm", width, True)


def siglip2(f: Fields, t: Tensors) -> None:
    """SigLIP 2: patches as rows of pixels, any number of them."""
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch = patches(f)
    t.linear("embeddings.patch_embedding", channels * patch * patch, width, True)
    t.embedding("embeddings.position_embedding", f.count("num_patches"), width)
    encoder_layers(t, "encoder.layers.*.", f.layers(), width, inner)
    t.norm("post_layernorm", width, True)
    if f.flag("vision_use_head", True):
        siglip_head(t, width, inner)


def whisper(f: Fields, t: Tensors) -> None:
    """Whisper's encoder: two convolutions, fixed positions, keys without bias."""
    width = f.count("d_model", f.count("hidden_size", 1280))
    bins = f.count("num_mel_bins")
    for name, inputs in (("conv1", bins), ("conv2", width)):
        t.add(f"{name}.weight", (width, inputs, 3), Role.CONV)
        t.add(f"{name}.bias", (width,), Role.BIAS)
    t.embedding("embed_positions", f.count("max_source_positions"), width)
    encoder_layers(
        t,
        "layers.*.",
        f.layers("encoder_layers") if f.has("encoder_layers") else f.layers(),
        width,
        f.count("encoder_ffn_dim") if f.has("encoder_ffn_dim") else f.count("intermediate_size"),
        norms=("self_attn_layer_norm", "final_layer_norm"),
        mlp=("fc1", "fc2"),
        key_bias=False,
    )
    t.norm("layer_norm", width, True)
