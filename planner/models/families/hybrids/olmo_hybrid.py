"""OLMo Hybrid: gated delta nets with norms before them, softmax attention with norms after."""

from collections.abc import Sequence

from ...config_fields import Fields
from ...spec import Mixer, RecurrentState, Role
from ..blocks.attention import gqa
from ..blocks.layer_types import FULL, LINEAR
from ..decoder import Block, Style, layer_types
from ..llama import OLMO2


def olmo_hybrid_mixer(b: Block, kind: str) -> Mixer:
    """OLMo Hybrid: its linear layers have norms before, its softmax layers after."""
    f, t = b.f, b.t
    if kind == FULL:
        t.norm("post_attention_layernorm", b.hidden)
        t.norm("post_feedforward_layernorm", b.hidden)
        return gqa(b, kind, bias="attention_bias", qk_norm="width")
    t.norm("input_layernorm", b.hidden)
    t.norm("post_attention_layernorm", b.hidden)
    query = f.count("num_attention_heads")
    keys, values = f.count("linear_num_key_heads", query), f.count("linear_num_value_heads", query)
    key_dim = f.count("linear_key_head_dim", int(0.75 * b.hidden / keys))
    value_dim = f.count("linear_value_head_dim", 2 * key_dim)
    kernel = f.count("linear_conv_kernel_dim")
    key_width, value_width = keys * key_dim, values * value_dim
    mixed = 2 * key_width + value_width
    with t.scope("linear_attn."):
        t.add("A_log", (values,), Role.OTHER)
        t.add("dt_bias", (values,), Role.OTHER)
        t.linear("q_proj", b.hidden, key_width)
        t.linear("k_proj", b.hidden, key_width)
        t.linear("v_proj", b.hidden, value_width)
        t.linear("a_proj", b.hidden, values)
        t.linear("b_proj", b.hidden, values)
        t.linear("g_proj", b.hidden, value_width)
        t.linear("o_proj", value_width, b.hidden)
        t.add("conv1d.weight", (mixed, 1, kernel), Role.CONV)
        t.norm("o_norm", value_dim)
    return RecurrentState(
        "gated_delta",
        state=values * key_dim * value_dim,
        conv=mixed * kernel,
        heads=values,
        key_dim=key_dim,
        value_dim=value_dim,
        width=mixed + value_width,
        state_dtype="float32",
    )


def olmo_hybrid_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    if given is not None:
        return given
    kinds = [FULL if i % 4 == 3 else LINEAR for i in range(layers)]
    return kinds if FULL in kinds else [*kinds[:-1], FULL]


STYLES: dict[str, Style] = {
    "olmo_hybrid": OLMO2.but(attention=olmo_hybrid_mixer, kinds=olmo_hybrid_kinds, norms=()),
}
