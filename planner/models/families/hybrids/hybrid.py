"""Hybrids: layers of attention among layers of linear attention, Mamba or convolutions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...config_fields import Fields
from ...spec import FFN, DenseFFN, Mixer, RecurrentState
from ..blocks.attention import gqa
from ..blocks.ffn import dense_or_moe, first_dense, gated, moe, stepped
from ..blocks.layer_types import LINEAR, Kinds, every_nth_full
from ..blocks.moe import granite_moe_ffn
from ..blocks.recurrent import (
    gated_delta_net,
    inner_width,
    mamba1,
    mamba2,
    short_conv,
    time_step_rank,
)
from ..decoder import Block, Style, layer_types
from ..moe import SHARED_EXPERT, all_moe


def qwen_mixer(b: Block, kind: str, *, split: bool) -> Mixer:
    if kind == LINEAR:
        return gated_delta_net(b, split=split)
    return gqa(b, kind, bias="attention_bias", qk_norm="head", gate="double")


QWEN_NEXT = Style(
    attention=partial(qwen_mixer, split=False),
    ffn=SHARED_EXPERT,
    ffn_kinds=stepped,
    kinds=every_nth_full(4, other=LINEAR, field="full_attention_interval"),
    norm="rms_offset",
)
QWEN35 = QWEN_NEXT.but(attention=partial(qwen_mixer, split=True), ffn=gated, ffn_kinds=None)


def granite_mamba(b: Block) -> RecurrentState:
    """Granite 4, Bamba: heads and widths from `mamba_*` fields."""
    f = b.f
    heads = f.count("mamba_n_heads")
    inner = f.count("mamba_expand") * b.hidden
    auto = f.raw.get("mamba_d_head", f.defaults.get("mamba_d_head"))
    head_dim = inner // heads if auto in ("auto", None) else f.count("mamba_d_head")
    if heads * head_dim != inner:
        raise f.wrong("mamba_n_heads", heads, f"a share of the {inner} inner channels")
    return mamba2(
        b,
        heads=heads,
        head_dim=head_dim,
        groups=f.count("mamba_n_groups"),
        state=f.count("mamba_d_state"),
        kernel=f.count("mamba_d_conv"),
        conv_bias=f.flag("mamba_conv_bias"),
        bias=f.flag("mamba_proj_bias"),
    )


def granite_mixer(b: Block, kind: str) -> Mixer:
    return granite_mamba(b) if kind == LINEAR else gqa(b, kind, bias="attention_bias")


def granite_kinds(f: Fields, layers: int) -> Sequence[str]:
    return layer_types(f, layers) or [LINEAR] * layers


def bamba_kinds(f: Fields, layers: int) -> Sequence[str]:
    at = set(f.counts("attn_layer_indices") or ())
    return ["full_attention" if i in at else LINEAR for i in range(layers)]


FEED_FORWARD: dict[str, Any] = {
    "norms": ("input_layernorm", "pre_ff_layernorm"),
    "final_norm": "final_layernorm",
}


def falcon_h1_mixers(b: Block, kind: str) -> tuple[Mixer, Mixer]:
    """Falcon-H1: attention and Mamba-2 read the same input in every layer."""
    f = b.f
    heads = f.count("mamba_n_heads")
    auto = f.raw.get("mamba_d_head", f.defaults.get("mamba_d_head"))
    each = None if auto in ("auto", None) else f.count("mamba_d_head")
    known = f.names("mamba_d_ssm") or each is None or heads * each == f.defaults.get("mamba_d_ssm")
    stated = f.optional_count("mamba_d_ssm") if known else heads * (each or 1)
    inner = inner_width(f, "mamba_expand", b.hidden) if stated is None else stated
    head_dim = inner // heads if each is None else each
    if heads * head_dim != inner:
        raise f.wrong("mamba_d_ssm", inner, f"{heads} heads of {head_dim}")
    if not known:
        f.note(f"mamba_d_ssm is not in the config: taken as {heads} heads of {each}, {inner}")
    state = mamba2(
        b,
        heads=heads,
        head_dim=head_dim,
        inner=inner,
        groups=f.count("mamba_n_groups"),
        state=f.count("mamba_d_state"),
        kernel=f.count("mamba_d_conv"),
        conv_bias=f.flag("mamba_conv_bias"),
        bias=f.flag("mamba_proj_bias"),
        output_bias=f.flag("projectors_bias"),
        norm=f.flag("mamba_rms_norm"),
    )
    return gqa(b, "full_attention", bias="attention_bias"), state


def jamba_mixer(b: Block, kind: str) -> Mixer:
    f = b.f
    if kind != LINEAR:
        return gqa(b, kind)
    return mamba1(
        b,
        inner=inner_width(f, "mamba_expand", b.hidden),
        state=f.count("mamba_d_state"),
        kernel=f.count("mamba_d_conv"),
        rank=time_step_rank(f, "mamba_dt_rank", b.hidden),
        conv_bias=f.flag("mamba_conv_bias"),
        bias=f.flag("mamba_proj_bias"),
        scope="mamba.",
        norms=True,
    )


def periodic(period: str, offset: str, hit: str, miss: str) -> Kinds:
    """Jamba's patterns: layer i is `hit` where i mod period equals the offset."""

    def kinds(f: Fields, layers: int) -> Sequence[str]:
        every, at = f.count(period), f.count(offset, low=0)
        return [hit if i % every == at else miss for i in range(layers)]

    return kinds


def jamba_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    if f.count("num_experts") == 1:
        return ["dense"] * layers
    return periodic("expert_layer_period", "expert_layer_offset", "moe", "dense")(f, layers)


def lfm2_mixer(b: Block, kind: str) -> Mixer:
    if kind == "conv":
        return short_conv(b, kernel=b.f.count("conv_L_cache"), bias=b.f.flag("conv_bias"))
    return gqa(
        b,
        kind,
        names=("q_proj", "k_proj", "v_proj", "out_proj"),
        qk_norm="head",
        norm_names=("q_layernorm", "k_layernorm"),
    )


def lfm2_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    if given is not None:
        return given
    at = f.counts("full_attn_idxs")
    full = set(range(layers)) if at is None else set(at)
    return ["full_attention" if i in full else "conv" for i in range(layers)]


def lfm2_width(f: Fields) -> int:
    """LFM2's FFN: two thirds of the stated width, rounded up, where it adjusts itself."""
    width = f.count("block_ff_dim") if f.has("block_ff_dim") else f.count("intermediate_size")
    if not f.flag("block_auto_adjust_ff_dim"):
        return width
    width = int(2 * width / 3)
    multiplier = f.number("block_ffn_dim_multiplier")
    if multiplier is not None:
        width = int(multiplier * width)
        multiple = f.count("block_multiple_of")
        width = multiple * ((width + multiple - 1) // multiple)
    return width


def lfm2_ffn(b: Block, kind: str) -> DenseFFN:
    return gated(b, width=lfm2_width(b.f), names=("w1", "w3", "w2"), scope="feed_forward.")


def lfm2_moe_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b, names=("w1", "w3", "w2"), scope="feed_forward.")
    return moe(b, scope="feed_forward.")


LFM2 = Style(
    attention=lfm2_mixer,
    ffn=lfm2_ffn,
    kinds=lfm2_kinds,
    norms=("operator_norm", "ffn_norm"),
    final_norm="embedding_norm",
    tied_alias="tie_embedding",
)

STYLES: dict[str, Style] = {
    "qwen3_next": QWEN_NEXT,
    "qwen3_5_text": QWEN35,
    "qwen3_5_moe_text": QWEN35.but(ffn=SHARED_EXPERT, ffn_kinds=all_moe),
    "granitemoehybrid": Style(attention=granite_mixer, ffn=granite_moe_ffn, kinds=granite_kinds),
    "bamba": Style(
        attention=granite_mixer,
        ffn=partial(gated, bias="mlp_bias", scope="feed_forward."),
        kinds=bamba_kinds,
        **FEED_FORWARD,
    ),
    "falcon_h1": Style(
        attention=falcon_h1_mixers,
        ffn=partial(gated, bias="mlp_bias", scope="feed_forward."),
        kinds=lambda f, layers: ["hybrid"] * layers,
        **FEED_FORWARD,
    ),
    "jamba": Style(
        attention=jamba_mixer,
        ffn=dense_or_moe(
            partial(gated, scope="feed_forward."),
            partial(moe, width="intermediate_size", router="router", scope="feed_forward."),
        ),
        kinds=periodic("attn_layer_period", "attn_layer_offset", "full_attention", LINEAR),
        ffn_kinds=jamba_ffn_kinds,
        **FEED_FORWARD,
    ),
    "lfm2": LFM2,
    "lfm2_moe": LFM2.but(
        ffn=lfm2_moe_ffn, ffn_kinds=partial(first_dense, field="num_dense_layers")
    ),
}
