"""Models without attention: Mamba, Falcon-Mamba, Mamba-2, RWKV-4. Their state does not grow."""

from ...config_fields import Fields
from ...spec import DenseFFN, RecurrentState, Role
from ..blocks.layer_types import LINEAR
from ..blocks.recurrent import inner_width, mamba1, mamba2, time_step_rank
from ..decoder import Block, Style


def no_ffn(b: Block, kind: str) -> None:
    """The mixer is the whole block."""


def mamba_mixer(b: Block, kind: str) -> RecurrentState:
    f = b.f
    return mamba1(
        b,
        inner=inner_width(f, "expand", b.hidden),
        state=f.count("state_size"),
        kernel=f.count("conv_kernel"),
        rank=time_step_rank(f, "time_step_rank", b.hidden),
        conv_bias=f.flag("use_conv_bias"),
        bias=f.flag("use_bias"),
        scope="mixer.",
    )


def mamba2_mixer(b: Block, kind: str) -> RecurrentState:
    f = b.f
    return mamba2(
        b,
        heads=f.count("num_heads"),
        head_dim=f.count("head_dim"),
        groups=f.count("n_groups"),
        state=f.count("state_size"),
        kernel=f.count("conv_kernel"),
        conv_bias=f.flag("use_conv_bias"),
        bias=f.flag("use_bias"),
        inner=inner_width(f, "expand", b.hidden),
        scope="mixer.",
    )


def rwkv_mixer(b: Block, kind: str) -> RecurrentState:
    """RWKV-4's time mixing: three float32 numbers a channel, and the last token of each half."""
    t, width = b.t, b.f.optional_count("attention_hidden_size") or b.hidden
    with t.scope("attention."):
        t.add("time_decay", (width,), Role.OTHER)
        t.add("time_first", (width,), Role.OTHER)
        for name in ("time_mix_key", "time_mix_value", "time_mix_receptance"):
            t.add(name, (1, 1, b.hidden), Role.OTHER)
        for name in ("key", "value", "receptance"):
            t.linear(name, b.hidden, width)
        t.linear("output", width, b.hidden)
    return RecurrentState(
        kind="rwkv",
        state=3 * width,
        conv=2 * b.hidden,
        heads=1,
        key_dim=1,
        value_dim=width,
        width=3 * width,
        state_dtype="float32",
    )


def rwkv_ffn(b: Block, kind: str) -> DenseFFN:
    return channel_mixing(b, b.f.optional_count("intermediate_size") or 4 * b.hidden)


def channel_mixing(b: Block, width: int) -> DenseFFN:
    """RWKV's FFN, whose output a receptance gates."""
    t = b.t
    with t.scope("feed_forward."):
        for name in ("time_mix_key", "time_mix_receptance"):
            t.add(name, (1, 1, b.hidden), Role.OTHER)
        t.linear("key", b.hidden, width)
        t.linear("receptance", b.hidden, b.hidden)
        t.linear("value", width, b.hidden)
    return DenseFFN(width, False, "relu2")


def rwkv_first_norm(b: Block) -> None:
    b.t.norm("blocks.*.pre_ln", b.hidden, True)


def always_linear(f: Fields, layers: int) -> list[str]:
    return [LINEAR] * layers


MAMBA = Style(
    attention=mamba_mixer,
    ffn=no_ffn,
    kinds=always_linear,
    norms=("norm",),
    embed="embeddings",
    final_norm="norm_f",
    prefix="backbone.",
)
RWKV = Style(
    attention=rwkv_mixer,
    ffn=rwkv_ffn,
    kinds=always_linear,
    norms=("ln1", "ln2"),
    norm="layer",
    norm_bias=True,
    embed="embeddings",
    final_norm="ln_out",
    layers="blocks",
    prefix="rwkv.",
    head="head",
    extra=rwkv_first_norm,
)
STYLES: dict[str, Style] = {
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": MAMBA.but(attention=mamba2_mixer),
    "rwkv": RWKV,
}
