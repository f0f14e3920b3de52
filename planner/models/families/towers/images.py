"""Vision towers and projectors of many image models, in the shapes transformers gives them."""

from ...config_fields import Fields
from ...spec import Role
from ...tensor_list import Tensors
from . import ocr
from .vision import encoder_layers, image_encoder, patches, qwen_blocks


def sam_alone(f: Fields, t: Tensors) -> None:
    """GOT-OCR 2: SAM's encoder and neck, without the compressor."""
    channels, patch = patches(f)
    ocr.sam(
        t,
        width=f.count("hidden_size"),
        inner=f.count("mlp_dim"),
        layers=f.layers(),
        heads=f.count("num_attention_heads"),
        side=f.count("image_size") // patch,
        patch=patch,
        channels=channels,
        window=f.count("window_size"),
        full=f.counts("global_attn_indexes") or (),
        out=f.count("output_channels"),
        down=(),
    )


def got_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    out, width = v.count("output_channels"), text.count("hidden_size")
    t.add("conv_upsampler1.weight", (2 * out, out, 3, 3), Role.CONV)
    t.add("conv_upsampler2.weight", (4 * out, 2 * out, 3, 3), Role.CONV)
    t.linear("multimodal_projector", 4 * out, width, True)


def ocr_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """One matrix from SAM's compressed and CLIP's channels side by side."""
    width = text.count("hidden_size")
    sections = [v.mapping(name) or {} for name in ("sam_config", "encoder_config")]
    down = Fields(sections[0], path="sam_config.").counts("downsample_channels", low=1) or (0,)
    inputs = down[-1] + Fields(sections[1], path="encoder_config.").count("hidden_size")
    t.linear("multi_modal_projector", inputs, width, True)
    for name in ("view_separator", "image_newline"):
        t.add(name, (width,), Role.OTHER)


def ocr2_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width = text.count("hidden_size")
    encoder = Fields(v.mapping("encoder_config") or {}, path="encoder_config.")
    t.linear("multi_modal_projector", encoder.count("hidden_size"), width, True)
    t.add("view_separator", (width,), Role.OTHER)


def hunyuan_vision(f: Fields, t: Tensors) -> None:
    """An image encoder, and a merger that joins patches by two convolutions."""
    width, inner, out = (
        f.count(n) for n in ("hidden_size", "intermediate_size", "text_hidden_size")
    )
    channels, patch = patches(f)
    merge = f.count("spatial_merge_size")
    t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
    t.add("embeddings.patch_embedding.bias", (width,), Role.BIAS)
    side = f.count("max_image_size") // patch
    t.embedding("embeddings.position_embedding", side * side + 1, width)
    encoder_layers(
        t,
        "layers.*.",
        f.layers(),
        width,
        inner,
        names=("q_proj", "k_proj", "v_proj", "o_proj"),
    )
    with t.scope("patch_merger."):
        t.add("image_newline", (4 * width,), Role.OTHER)
        for name in ("image_begin", "image_end", "image_sep"):
            t.add(name, (out,), Role.OTHER)
        t.add("proj_conv.weight", (2 * width, width, merge, merge), Role.CONV)
        t.add("proj_conv.bias", (2 * width,), Role.BIAS)
        t.add("proj_out.weight", (4 * width, 2 * width, 1, 1), Role.CONV)
        t.add("proj_out.bias", (4 * width,), Role.BIAS)
        t.linear("mlp", 4 * width, out, True)
        t.norm("before_rms", width)
        t.norm("after_rms", out)


def ernie(f: Fields, t: Tensors) -> None:
    """ERNIE 4.5 VL: patches by one matrix, plain layers."""
    width, patch = f.count("hidden_size"), f.count("patch_size")
    t.add("patch_embed.proj.weight", (width, f.count("in_channels") * patch * patch), Role.LINEAR)
    qwen_blocks(f, t, width, f.count("intermediate_size"))
    t.norm("ln", width, True)


def ernie_resampler(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """Merges patches in space, then frames in time."""
    merged = v.count("hidden_size") * v.count("spatial_merge_size") ** 2
    out = text.count("hidden_size")
    frames = v.count("temporal_merge_size")
    for name, inputs in (("spatial_linear", merged), ("temporal_linear", merged * frames)):
        t.linear(f"{name}.fc1", inputs, merged, True)
        t.linear(f"{name}.fc2", merged, merged, True)
        t.norm(f"{name}.ln", merged, True)
    t.linear("mlp", merged, out, True)
    t.norm("after_norm", out)


def muse(f: Fields, t: Tensors) -> None:
    """Muse: patches of two frames by one matrix, learned positions, plain layers."""
    width, patch = f.count("hidden_size"), f.count("patch_size")
    inputs = 3 * f.count("patch_temporal") * patch * patch
    places = f.count("pos_emb_height") * f.count("pos_emb_width")
    t.linear("patch_embedder.patch_embedding", inputs, width)
    t.embedding("patch_embedder.position_embedding_table", places, width)
    t.norm("ln_pre", width, True)
    encoder_layers(
        t,
        "layers.*.",
        f.layers(),
        width,
        f.count("intermediate_size"),
        attention="attn.",
        names=("q_proj", "k_proj", "v_proj", "proj"),
        norms=("norm1", "norm2"),
    )
    t.norm("ln_post", width, True)


def muse_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    middle = f.count("projector_hidden_size")
    t.linear("vision_adapter.fc1", f.count("out_hidden_size"), middle)
    t.linear("vision_adapter.fc2", middle, middle)
    t.linear("vision_projection", middle, text.count("hidden_size"))


def video_llama(f: Fields, t: Tensors) -> None:
    """SigLIP's layers with rotary positions."""
    width = f.count("hidden_size")
    channels, patch = patches(f)
    t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
    t.add("embeddings.patch_embedding.bias", (width,), Role.BIAS)
    encoder_layers(t, "encoder.layers.*.", f.layers(), width, f.count("intermediate_size"))
    t.norm("post_layernorm", width, True)


def image_and_video(f: Fields, t: Tensors) -> None:
    """Video-LLaVA: the same encoder twice, for images and for frames."""
    for name in ("image_tower.", "video_tower."):
        with t.scope(name):
            image_encoder(f, t)


def readout(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width = text.count("hidden_size")
    t.linear("readout.*", v.count("hidden_size"), width, True)
    t.linear("readout.*", width, width, True)


def vip_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """Several layers' features side by side, normed, then LLaVA's two layers."""
    layers = f.raw.get("vision_feature_layer")
    times = len(layers) if isinstance(layers, list) else 5
    width, seen = text.count("hidden_size"), times * v.count("hidden_size")
    t.norm("projector_layernorm", seen, True)
    t.linear("linear_1", seen, width, True)
    t.linear("linear_2", width, width, True)


def aligner(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width = text.count("hidden_size")
    t.linear("linear1", v.count("hidden_size"), width, True)
    t.linear("linear2", width, width, True)


def paddle_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width = v.count("hidden_size")
    merged = width * v.count("spatial_merge_size") ** 2
    t.norm("pre_norm", width, True)
    t.linear("linear_1", merged, merged, True)
    t.linear("linear_2", merged, text.count("hidden_size"), True)


def exaone(f: Fields, t: Tensors) -> None:
    """EXAONE 4.5: Qwen2.5-VL's tower with fewer heads for keys and values."""
    width, heads = f.count("hidden_size"), f.count("num_heads")
    kv = f.count("num_key_value_heads", heads) * (width // heads)
    inner, merged = f.count("intermediate_size"), width * f.count("spatial_merge_size") ** 2
    channels, patch = patches(f, "in_channels")
    frames = f.count("temporal_patch_size")
    t.add("patch_embed.proj.weight", (width, channels, frames, patch, patch), Role.CONV)
    with t.scope("blocks.*.", f.layers("depth")):
        t.norm("norm1", width)
        t.norm("norm2", width)
        t.linear("attn.qkv", width, width + 2 * kv, True)
        t.linear("attn.proj", width, width, True)
        t.linear("mlp.gate_proj", width, inner, True)
        t.linear("mlp.up_proj", width, inner, True)
        t.linear("mlp.down_proj", inner, width, True)
    t.norm("merger.ln_q", width)
    t.linear("merger.mlp.*", merged, merged, True)
    t.linear("merger.mlp.*", merged, f.count("out_hidden_size"), True)
