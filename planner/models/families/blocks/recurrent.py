"""Mixers whose state does not grow: Mamba-1, Mamba-2, gated delta nets, short convolutions."""

from ...config_fields import MAX_SIZE, Fields
from ...spec import RecurrentState, Role
from ..decoder import Block


def inner_width(f: Fields, name: str, hidden: int) -> int:
    """A state space's inner width: a factor, maybe not whole, times the hidden size."""
    factor = f.number(name)
    if factor is None:
        raise f.missing(name)
    width = int(factor * hidden)
    if not 1 <= width <= MAX_SIZE:
        raise f.wrong(name, factor, "a factor that leaves a width")
    return width


def time_step_rank(f: Fields, name: str, hidden: int) -> int:
    """Mamba's dt rank: a number, or "auto" for a sixteenth of the hidden size."""
    given = f.raw.get(name, f.defaults.get(name, "auto"))
    return -(-hidden // 16) if given in ("auto", None) else f.count(name)


def gated_delta_net(b: Block, *, split: bool) -> RecurrentState:
    """Qwen3-Next's (`split` False: q, k, v, z in one projection) and Qwen3.5's (`split` True).

    The state is one matrix of key_dim x value_dim for each value head, kept in float32; the
    convolution's tail holds `linear_conv_kernel_dim` columns of q, k and v.
    """
    f, t = b.f, b.t
    key_heads, value_heads = f.count("linear_num_key_heads"), f.count("linear_num_value_heads")
    key_dim, value_dim = f.count("linear_key_head_dim"), f.count("linear_value_head_dim")
    kernel = f.count("linear_conv_kernel_dim")
    keys, values = key_heads * key_dim, value_heads * value_dim
    mixed = 2 * keys + values
    with t.scope("linear_attn."):
        t.add("dt_bias", (value_heads,), Role.OTHER)
        t.add("A_log", (value_heads,), Role.OTHER)
        t.add("conv1d.weight", (mixed, 1, kernel), Role.CONV)
        if split:
            t.linear("in_proj_qkv", b.hidden, mixed)
            t.linear("in_proj_z", b.hidden, values)
            t.linear("in_proj_b", b.hidden, value_heads)
            t.linear("in_proj_a", b.hidden, value_heads)
        else:
            t.linear("in_proj_qkvz", b.hidden, mixed + values)
            t.linear("in_proj_ba", b.hidden, 2 * value_heads)
        t.norm("norm", value_dim)
        t.linear("out_proj", values, b.hidden)
    return RecurrentState(
        kind="gated_delta",
        state=value_heads * key_dim * value_dim,
        conv=mixed * kernel,
        heads=value_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        width=mixed + values,
        state_dtype="float32",
    )


def mamba2(
    b: Block,
    *,
    heads: int,
    head_dim: int,
    groups: int,
    state: int,
    kernel: int,
    conv_bias: bool,
    bias: bool,
    output_bias: bool | None = None,
    inner: int | None = None,
    norm: bool = True,
    scope: str = "mamba.",
) -> RecurrentState:
    """Mamba-2 with `heads` heads of `head_dim` channels and `groups` pairs of B and C.

    The state is head_dim x state for each head, in float32; the convolution's tail holds
    `kernel` columns of x, B and C.
    """
    t = b.t
    inner = heads * head_dim if inner is None else inner
    mixed = inner + 2 * groups * state
    with t.scope(scope):
        t.add("dt_bias", (heads,), Role.OTHER)
        t.add("A_log", (heads,), Role.OTHER)
        t.add("D", (heads,), Role.OTHER)
        t.add("conv1d.weight", (mixed, 1, kernel), Role.CONV)
        if conv_bias:
            t.add("conv1d.bias", (mixed,), Role.BIAS)
        t.linear("in_proj", b.hidden, inner + mixed + heads, bias)
        if norm:
            t.norm("norm", inner)
        t.linear("out_proj", inner, b.hidden, bias if output_bias is None else output_bias)
    return RecurrentState(
        kind="mamba2",
        state=heads * head_dim * state,
        conv=mixed * kernel,
        heads=heads,
        key_dim=state,
        value_dim=head_dim,
        width=inner + mixed + heads,
        state_dtype="float32",
        block=b.f.optional_count("mamba_chunk_size") or b.f.optional_count("chunk_size") or 256,
    )


def mamba1(
    b: Block,
    *,
    inner: int,
    state: int,
    kernel: int,
    rank: int,
    conv_bias: bool,
    bias: bool,
    scope: str,
    norms: bool = False,
) -> RecurrentState:
    """Mamba: a selective scan over `inner` channels with `state` numbers each, in float32.

    `norms`: Jamba's norms over dt, B and C.
    """
    t = b.t
    with t.scope(scope):
        t.add("A_log", (inner, state), Role.OTHER)
        t.add("D", (inner,), Role.OTHER)
        t.add("conv1d.weight", (inner, 1, kernel), Role.CONV)
        if conv_bias:
            t.add("conv1d.bias", (inner,), Role.BIAS)
        t.linear("in_proj", b.hidden, 2 * inner, bias)
        t.linear("x_proj", inner, rank + 2 * state)
        t.linear("dt_proj", rank, inner, bias=True)
        t.linear("out_proj", inner, b.hidden, bias)
        if norms:
            t.norm("dt_layernorm", rank)
            t.norm("b_layernorm", state)
            t.norm("c_layernorm", state)
    return mamba1_state(inner, state, kernel)


def mamba1_state(inner: int, state: int, kernel: int) -> RecurrentState:
    """What a selective scan over `inner` channels keeps."""
    return RecurrentState(
        kind="mamba1",
        state=inner * state,
        conv=inner * kernel,
        heads=1,
        key_dim=state,
        value_dim=inner,
        width=2 * inner,
        state_dtype="float32",
    )


def delta_state(heads: int, dim: int, kernel: int) -> RecurrentState:
    """What delta attention keeps whose keys and values are of one size (Kimi's, Ling's)."""
    return RecurrentState(
        "gated_delta",
        state=heads * dim * dim,
        conv=3 * heads * dim * kernel,
        heads=heads,
        key_dim=dim,
        value_dim=dim,
        width=4 * heads * dim,
        state_dtype="float32",
        decays_by_channel=True,
    )


def short_conv(b: Block, *, kernel: int, bias: bool, scope: str = "conv.") -> RecurrentState:
    """LFM2's gated short convolution; its state is the convolution's tail alone."""
    t, width = b.t, b.hidden
    with t.scope(scope):
        t.add("conv.weight", (width, 1, kernel), Role.CONV)
        if bias:
            t.add("conv.bias", (width,), Role.BIAS)
        t.linear("in_proj", width, 3 * width, bias)
        t.linear("out_proj", width, width, bias)
    return RecurrentState(
        kind="short_conv",
        state=0,
        conv=width * kernel,
        heads=1,
        key_dim=0,
        value_dim=width,
        width=3 * width,
    )
