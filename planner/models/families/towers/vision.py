"""Vision and audio towers: their weights, counted and named apart from the text model."""

from ...config_fields import Fields
from ...spec import Role
from ...tensor_list import Tensors


def encoder_layers(
    t: Tensors,
    prefix: str,
    layers: int,
    width: int,
    inner: int,
    *,
    attention: str = "self_attn.",
    names: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "out_proj"),
    fused: str = "",
    norms: tuple[str, str] = ("layer_norm1", "layer_norm2"),
    norm_bias: bool = True,
    mlp: tuple[str, ...] = ("mlp.fc1", "mlp.fc2"),
    bias: bool = True,
    key_bias: bool | None = None,
    mlp_bias: bool | None = None,
) -> None:
    """Pre-norm transformer encoder layers.

    Two `mlp` names are up and down; three are gate, up and down.
    """
    with t.scope(prefix, layers):
        if fused:
            t.linear(attention + fused, width, 3 * width, bias)
        else:
            t.linear(attention + names[0], width, width, bias)
            t.linear(attention + names[1], width, width, bias if key_bias is None else key_bias)
            t.linear(attention + names[2], width, width, bias)
        t.linear(attention + names[3], width, width, bias)
        for norm in norms:
            t.norm(norm, width, norm_bias)
        has_bias = bias if mlp_bias is None else mlp_bias
        for name in mlp[:-1]:
            t.linear(name, width, inner, has_bias)
        t.linear(mlp[-1], inner, width, has_bias)


def patches(f: Fields, channels: str = "num_channels") -> tuple[int, int]:
    """(channels, patch size) of an image tower."""
    return f.count(channels), f.count("patch_size")


def siglip(f: Fields, t: Tensors) -> None:
    """SigLIP: a plain encoder with learned positions, and a pooling head where it has one."""
    siglip_encoder(f, t, f.layers())
    if f.flag("vision_use_head", True):
        siglip_head(t, f.count("hidden_size"), f.count("intermediate_size"))


def siglip_encoder(f: Fields, t: Tensors, layers: int) -> None:
    """SigLIP without its head, and its first `layers` alone."""
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch = patches(f)
    side = f.count("image_size") // patch
    t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
    t.add("embeddings.patch_embedding.bias", (width,), Role.BIAS)
    t.embedding("embeddings.position_embedding", side * side, width)
    encoder_layers(t, "encoder.layers.*.", layers, width, inner)
    t.norm("post_layernorm", width, bias=True)


def siglip_head(t: Tensors, width: int, inner: int) -> None:
    """A learned query that pools the patches."""
    with t.scope("head."):
        t.add("probe", (1, 1, width), Role.OTHER)
        t.add("attention.in_proj_weight", (3 * width, width), Role.LINEAR)
        t.add("attention.in_proj_bias", (3 * width,), Role.BIAS)
        t.linear("attention.out_proj", width, width, True)
        t.norm("layernorm", width, True)
        t.linear("mlp.fc1", width, inner, True)
        t.linear("mlp.fc2", inner, width, True)


def clip(f: Fields, t: Tensors) -> None:
    """CLIP's image encoder."""
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch = patches(f)
    side = f.count("image_size") // patch
    t.add("embeddings.class_embedding", (width,), Role.OTHER)
    t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
    t.embedding("embeddings.position_embedding", side * side + 1, width)
    t.norm("pre_layrnorm", width, True)
    encoder_layers(t, "encoder.layers.*.", f.layers(), width, inner)
    t.norm("post_layernorm", width, True)


def pixtral(f: Fields, t: Tensors) -> None:
    """Pixtral: gated FFN, RMS norms, rotary positions, no biases."""
    width = f.count("hidden_size")
    channels, patch = patches(f)
    t.add("patch_conv.weight", (width, channels, patch, patch), Role.CONV)
    t.norm("ln_pre", width)
    encoder_layers(
        t,
        "transformer.layers.*.",
        f.layers(),
        width,
        f.count("intermediate_size"),
        attention="attention.",
        names=("q_proj", "k_proj", "v_proj", "o_proj"),
        norms=("attention_norm", "ffn_norm"),
        norm_bias=False,
        mlp=("feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"),
        bias=False,
    )


def frame_patches(f: Fields, t: Tensors, width: int, bias: bool) -> None:
    """Patches over frames, as Qwen's towers name them."""
    channels, patch = patches(f, "in_channels")
    frames = f.count("temporal_patch_size")
    t.add("patch_embed.proj.weight", (width, channels, frames, patch, patch), Role.CONV)
    if bias:
        t.add("patch_embed.proj.bias", (width,), Role.BIAS)


GATED_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PLAIN_MLP = ("mlp.linear_fc1", "mlp.linear_fc2")


def qwen_blocks(
    f: Fields,
    t: Tensors,
    width: int,
    inner: int,
    *,
    apart: bool = False,
    norm_bias: bool = True,
    mlp: tuple[str, ...] = ("mlp.fc1", "mlp.fc2"),
) -> None:
    """Layers as Qwen's towers name them; `apart`: q, k and v are matrices of their own."""
    encoder_layers(
        t,
        "blocks.*.",
        f.layers("depth"),
        width,
        inner,
        attention="attn.",
        names=("q", "k", "v", "proj") if apart else ("", "", "", "proj"),
        fused="" if apart else "qkv",
        norms=("norm1", "norm2"),
        norm_bias=norm_bias,
        mlp=mlp,
    )


def qwen2_vision(f: Fields, t: Tensors) -> None:
    """Qwen2-VL: `embed_dim` wide, FFN `mlp_ratio` times that, 2x2 patches merged."""
    width, out = f.count("embed_dim"), f.count("hidden_size")
    ratio = f.number("mlp_ratio") or 4.0
    frame_patches(f, t, width, bias=False)
    qwen_blocks(f, t, width, int(width * ratio))
    _qwen_merger(f, t, width, out, norm_bias=True)


def qwen25_vision(f: Fields, t: Tensors, *, apart: bool = False) -> None:
    """Qwen2.5-VL: gated FFN and RMS norms; Qwen2.5-Omni has q, k and v `apart`."""
    width = f.count("hidden_size")
    frame_patches(f, t, width, bias=False)
    inner = f.count("intermediate_size")
    qwen_blocks(f, t, width, inner, apart=apart, norm_bias=False, mlp=GATED_MLP)
    _qwen_merger(f, t, width, f.count("out_hidden_size"), norm_bias=False)


def _qwen_merger(f: Fields, t: Tensors, width: int, out: int, norm_bias: bool) -> None:
    merged = width * f.count("spatial_merge_size") ** 2
    t.norm("merger.ln_q", width, norm_bias)
    t.linear("merger.mlp.*", merged, merged, True)
    t.linear("merger.mlp.*", merged, out, True)


def qwen3_vision(f: Fields, t: Tensors, *, omni: bool = False) -> None:
    """Qwen3-VL and Qwen3.5: learned positions, plain FFN, and mergers fed from inner layers; in
    Qwen3-`omni` the mergers have other names."""
    width, out = f.count("hidden_size"), f.count("out_hidden_size")
    frame_patches(f, t, width, bias=True)
    t.embedding("pos_embed", f.count("num_position_embeddings"), width)
    qwen_blocks(f, t, width, f.count("intermediate_size"), mlp=PLAIN_MLP)
    merged = width * f.count("spatial_merge_size") ** 2
    deep = f.counts("deepstack_visual_indexes") or ()
    inner = "merger_list.*." if omni else "deepstack_merger_list.*."
    norm, first, second = (
        ("ln_q", "mlp.*", "mlp.*") if omni else ("norm", "linear_fc1", "linear_fc2")
    )
    for prefix, times, size in (("merger.", 1, width), (inner, len(deep), merged)):
        with t.scope(prefix, times):
            t.norm(norm, size, True)
            t.linear(first, merged, merged, True)
            t.linear(second, merged, out, True)


def image_encoder(f: Fields, t: Tensors) -> None:
    """CLIP, SigLIP or Pixtral, whichever the section says it is."""
    if f.kind == "pixtral":
        pixtral(f, t)
    elif f.kind.startswith("siglip"):
        siglip(f, t)
    elif f.kind.startswith("clip"):
        clip(f, t)
    else:
        raise f.wrong("model_type", f.kind, "an image encoder this version knows")
