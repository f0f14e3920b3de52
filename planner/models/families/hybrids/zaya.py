"""ZAYA1: compressed convolutional attention, and experts behind a router of several layers.

Queries and keys pass two short convolutions and half of the values come from the token before, so
a layer keeps, beside keys and values, the convolutions' tail and one narrow vector.
"""

from collections.abc import Sequence

from ...config_fields import Fields
from ...spec import Attention, MoEFFN, RecurrentState, Role
from ..blocks.attention import heads
from ..blocks.ffn import activation, experts
from ..blocks.layer_types import FULL, SLIDING
from ..decoder import Block, Style


def zaya_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = f.texts("layer_types", layers) or ["hybrid"] * layers
    return [SLIDING if kind == "hybrid_sliding" else FULL for kind in given]


def zaya_mixers(b: Block, kind: str) -> tuple[Attention, RecurrentState]:
    """Attention whose queries and keys pass two convolutions, and the tails that these keep."""
    f, t = b.f, b.t
    query, kv, dim = heads(f, b.hidden)
    first, second = f.count("cca_time0"), f.count("cca_time1")
    bias, mixed, half = f.flag("attention_bias"), (query + kv) * dim, kv * dim // 2
    window = f.count("sliding_window", high=2**31) if kind == SLIDING else None
    with t.scope("self_attn."):
        t.linear("o_proj", query * dim, b.hidden, bias)
        t.add("qk_norm.temp", (kv,), Role.OTHER)
        with t.scope("qkv_proj."):
            t.linear("q_proj", b.hidden, query * dim, bias)
            t.linear("k_proj", b.hidden, kv * dim, bias)
            t.linear("v_proj_current", b.hidden, half, bias)
            t.linear("v_proj_delayed", b.hidden, half, bias)
            t.add("conv_qk_depthwise.weight", (mixed, 1, first), Role.CONV)
            t.add("conv_qk_depthwise.bias", (mixed,), Role.BIAS)
            t.add("conv_qk_grouped.weight", (mixed, mixed // (query + kv), second), Role.CONV)
            t.add("conv_qk_grouped.bias", (mixed,), Role.BIAS)
    tail = RecurrentState(
        "short_conv",
        state=half,
        conv=mixed * (first + second - 2),
        heads=1,
        key_dim=0,
        value_dim=mixed,
        width=2 * mixed,
    )
    return Attention(query, kv, dim, dim, window, qkv_bias=bias), tail


def zaya_ffn(b: Block, kind: str) -> MoEFFN:
    """A token may be routed to no expert. All routers but the first add the last one's state."""
    f, t = b.f, b.t
    count, width = f.count("num_experts"), f.count("moe_intermediate_size")
    narrow = f.count("router_hidden_size")
    with t.scope("mlp."):
        with t.scope("gate."):
            t.linear("down_proj", b.hidden, narrow, True, role=Role.ROUTER)
            t.norm("router_mlp.norm", narrow)
            t.linear("router_mlp.fc1", narrow, narrow, True, role=Role.ROUTER)
            t.linear("router_mlp.fc2", narrow, narrow, True, role=Role.ROUTER)
            t.linear("router_mlp.out_proj", narrow, count + 1, role=Role.ROUTER)
            if kind == "later":
                t.add("router_states_scale", (narrow,), Role.OTHER)
        experts(b, count, width)
    for at in ("post_attention_residual_scale.", "post_mlp_residual_scale."):
        for name in ("hidden_states", "residual"):
            t.add(f"{at}{name}_scale", (b.hidden,), Role.OTHER)
            t.add(f"{at}{name}_bias", (b.hidden,), Role.OTHER)
    return MoEFFN(count, f.count("num_experts_per_tok"), width, activation=activation(f))


def zaya_input(b: Block) -> None:
    b.t.add("input_hidden_states_scale", (b.hidden,), Role.OTHER)
    b.t.add("input_hidden_states_bias", (b.hidden,), Role.OTHER)


STYLES: dict[str, Style] = {
    "zaya": Style(
        attention=zaya_mixers,
        ffn=zaya_ffn,
        kinds=zaya_kinds,
        ffn_kinds=lambda f, n: ["first", *["later"] * (n - 1)],
        extra=zaya_input,
        head_bias="lm_head_bias",
    )
}
