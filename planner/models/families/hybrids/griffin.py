"""RecurrentGemma: Griffin's gated linear recurrences among layers of local attention.

Two of three layers keep one float32 number a channel and the tail of a short convolution; the
third attends within `attention_window_size`. Nothing grows beyond the window. The states live in
the modules, not in the cache object (modeling_recurrent_gemma).
"""

from collections.abc import Sequence

from ...config_fields import Fields
from ...spec import Attention, DenseFFN, Mixer, RecurrentState, Role
from ..blocks.attention import heads
from ..blocks.ffn import gated
from ..blocks.layer_types import LINEAR, SLIDING
from ..decoder import Block, Style


def griffin_kinds(f: Fields, layers: int) -> Sequence[str]:
    """`block_types`, repeated; published files call it `_block_types`."""
    name = "block_types" if f.has("block_types") else "_block_types"
    cycle = f.texts(name) or f.texts("block_types") or ("recurrent", "recurrent", "attention")
    kinds = [cycle[i % len(cycle)] for i in range(layers)]
    return [LINEAR if kind == "recurrent" else SLIDING for kind in kinds]


def griffin_mixer(b: Block, kind: str) -> Mixer:
    return _recurrence(b) if kind == LINEAR else _local(b)


def _recurrence(b: Block) -> RecurrentState:
    f, t = b.f, b.t
    width = f.optional_count("lru_width") or b.hidden
    count, kernel = f.count("num_attention_heads"), f.count("conv1d_width", low=2)
    each = width // count
    with t.scope("temporal_block."):
        t.linear("linear_y", b.hidden, width, True)
        t.linear("linear_x", b.hidden, width, True)
        t.linear("linear_out", width, b.hidden, True)
        t.add("conv_1d.weight", (width, 1, kernel), Role.CONV)
        t.add("conv_1d.bias", (width,), Role.BIAS)
        t.add("rg_lru.recurrent_param", (width,), Role.OTHER)
        for name in ("input_gate", "recurrent_gate"):
            t.add(f"rg_lru.{name}_weight", (count, each, each), Role.OTHER)
            t.add(f"rg_lru.{name}_bias", (count, each), Role.OTHER)
    return RecurrentState(
        "rg_lru",
        state=width,
        conv=width * (kernel - 1),
        heads=1,
        key_dim=1,
        value_dim=width,
        width=2 * width,
        state_dtype="float32",
    )


def _local(b: Block) -> Attention:
    f, t = b.f, b.t
    query, kv, dim = heads(f, b.hidden)
    bias = f.flag("attention_bias")
    with t.scope("temporal_block."):
        t.linear("q_proj", b.hidden, query * dim, bias)
        t.linear("k_proj", b.hidden, kv * dim, bias)
        t.linear("v_proj", b.hidden, kv * dim, bias)
        t.linear("o_proj", query * dim, b.hidden, True)
    window = f.count("attention_window_size", high=2**31)
    return Attention(query, kv, dim, dim, window, qkv_bias=bias, rotary_dim=max(1, dim // 2))


def griffin_ffn(b: Block, kind: str) -> DenseFFN:
    """`intermediate_size` counts gate and up together."""
    width = b.f.count("intermediate_size", low=2) // 2
    return gated(b, width=width, bias=True, scope="mlp_block.")


STYLES: dict[str, Style] = {
    "recurrent_gemma": Style(
        attention=griffin_mixer,
        ffn=griffin_ffn,
        kinds=griffin_kinds,
        norms=("temporal_pre_norm", "channel_pre_norm"),
        norm="rms_offset",
        final_norm="final_norm",
        softcap="logits_soft_cap",
    )
}
