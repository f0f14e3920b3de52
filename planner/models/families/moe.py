"""Families that are Llama-like decoders with a mixture of experts."""

from collections.abc import Sequence
from functools import partial

from ..config_fields import Fields
from ..spec import Attention, Role
from .blocks.attention import gqa, heads, windows
from .blocks.ffn import dense_or_moe, first_dense, gated, moe, stepped
from .blocks.layer_types import (
    FULL,
    SLIDING,
    Kinds,
    after_first,
    every_nth_full,
    every_nth_slides_not,
    qwen2_moe_windows,
    qwen_moe_windows,
)
from .blocks.moe import (
    afmoe_ffn,
    ernie_ffn,
    gpt_oss_ffn,
    granite_moe_ffn,
    hunyuan_moe_ffn,
    routed,
    shared_of,
)
from .decoder import Block, Style, layer_types
from .llama import HUNYUAN, LAYER_NORM, LLAMA, MISTRAL, OLMO2, QWEN2, QWEN3


def all_moe(f: Fields, layers: int) -> Sequence[str]:
    return ["moe"] * layers


def listed_or_first(field_default: int) -> Kinds:
    """`mlp_layer_types`, else the first `first_k_dense_replace` layers dense."""

    def kinds(f: Fields, layers: int) -> Sequence[str]:
        given = f.texts("mlp_layer_types", layers)
        if given is not None:
            return given
        dense = f.count("first_k_dense_replace", field_default, low=0)
        return ["dense" if i < dense else "sparse" for i in range(layers)]

    return kinds


def ernie_kinds(f: Fields, layers: int) -> Sequence[str]:
    """Sparse between the first and last MoE layer, every `moe_layer_interval`-th."""
    start, interval = f.count("moe_layer_start_index", 0, low=0), f.count("moe_layer_interval", 1)
    end = f.count("moe_layer_end_index", -1, low=-1)
    end = layers - 1 if end == -1 else end
    return [
        "moe" if (i + 1) % interval == 0 and start <= i <= end else "dense" for i in range(layers)
    ]


def mimo_attention(b: Block, kind: str) -> Attention:
    """MiMo-V2: values narrower than keys; sliding layers have twice the KV heads, and sinks."""
    f, t = b.f, b.t
    query, kv, dim = heads(f, b.hidden)
    value = f.count("v_head_dim")
    slides = kind == SLIDING
    kv = 2 * kv if slides else kv
    size = f.optional_count("sliding_window_size")
    window = None
    if slides:
        window = size + 1 if size is not None else windows(f, kind)[0]
    bias = f.flag("attention_bias")
    with t.scope("self_attn."):
        if slides:
            t.add("sinks", (query,), Role.OTHER)
        t.linear("q_proj", b.hidden, query * dim, bias)
        t.linear("k_proj", b.hidden, kv * dim, bias)
        t.linear("v_proj", b.hidden, kv * value, bias)
        t.linear("o_proj", query * value, b.hidden)
    return Attention(query, kv, dim, value, window, sinks=slides, qkv_bias=bias)


def mimo_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    return given or [FULL if i == 0 or (i + 1) % 6 == 0 else SLIDING for i in range(layers)]


def mlp_listed(first: int) -> Kinds:
    def kinds(f: Fields, layers: int) -> Sequence[str]:
        return f.texts("mlp_layer_types", layers) or [
            "dense" if i < first else "sparse" for i in range(layers)
        ]

    return kinds


def glm_moe_attention(b: Block, kind: str) -> Attention:
    qk_norm = "head" if b.f.flag("use_qk_norm") else ""
    return gqa(b, kind, bias="attention_bias", output_bias=False, qk_norm=qk_norm)


SHARED_ROUTED = dense_or_moe(gated, routed)
MIXTRAL = MISTRAL.but(
    ffn=partial(moe, experts_field="num_local_experts", width="intermediate_size"),
    ffn_kinds=all_moe,
)
SHARED_EXPERT = dense_or_moe(
    gated,
    partial(
        moe,
        shared="shared_expert",
        shared_width="shared_expert_intermediate_size",
        shared_gate="shared_expert_gate",
    ),
)
STYLES: dict[str, Style] = {
    "afmoe": Style(
        attention=partial(gqa, qk_norm="head", gate="gate_proj"),
        ffn=dense_or_moe(gated, afmoe_ffn),
        ffn_kinds=partial(first_dense, field="num_dense_layers"),
        norms=(
            "input_layernorm",
            "post_attention_layernorm",
            "pre_mlp_layernorm",
            "post_mlp_layernorm",
        ),
        sandwich=True,
        kinds=every_nth_full(4, field="global_attn_every_n_layers"),
    ),
    "dots1": Style(
        attention=partial(gqa, bias="attention_bias", qk_norm="head"),
        ffn=SHARED_ROUTED,
        ffn_kinds=first_dense,
        kinds=after_first,
    ),
    "ernie4_5_moe": Style(
        head_bias="use_bias",
        attention=partial(gqa, bias="use_bias"),
        ffn=dense_or_moe(partial(gated, bias="use_bias"), ernie_ffn),
        ffn_kinds=ernie_kinds,
    ),
    "exaone_moe": Style(
        attention=partial(gqa, qk_norm="head"),
        ffn=dense_or_moe(
            gated,
            lambda b, kind: moe(
                b, shared="shared_experts", shared_width=shared_of(b.f, "num_shared_experts")
            ),
        ),
        ffn_kinds=listed_or_first(1),
        kinds=every_nth_slides_not,
    ),
    "flex_olmo": OLMO2.but(ffn=partial(moe, width="intermediate_size"), ffn_kinds=all_moe),
    "glm4_moe": Style(attention=glm_moe_attention, ffn=SHARED_ROUTED, ffn_kinds=first_dense),
    "gpt_oss": Style(
        attention=partial(gqa, bias="attention_bias", sinks=True),
        ffn=gpt_oss_ffn,
        kinds=every_nth_full(2, field=""),
    ),
    "granitemoe": LLAMA.but(ffn=granite_moe_ffn),
    "granitemoeshared": LLAMA.but(ffn=granite_moe_ffn),
    "hunyuan_v1_moe": HUNYUAN.but(ffn=hunyuan_moe_ffn),
    "hy_v3": Style(
        attention=partial(gqa, bias="attention_bias", qk_norm="head"),
        ffn=dense_or_moe(
            partial(gated, bias="mlp_bias"),
            lambda b, kind: moe(
                b,
                shared="shared_experts",
                shared_width=shared_of(b.f, "num_shared_experts"),
                shared_bias="mlp_bias",
            ),
        ),
        ffn_kinds=mlp_listed(1),
    ),
    "mimo_v2_flash": Style(
        attention=mimo_attention,
        ffn=dense_or_moe(gated, partial(moe, experts_field="n_routed_experts")),
        ffn_kinds=mlp_listed(1),
        kinds=mimo_kinds,
    ),
    "mixtral": MIXTRAL,
    "olmoe": Style(
        attention=partial(gqa, bias="attention_bias", qk_norm="width"),
        ffn=partial(moe, width="intermediate_size"),
        ffn_kinds=all_moe,
    ),
    "phimoe": Style(
        head_bias="lm_head_bias",
        attention=partial(gqa, bias="attention_bias"),
        ffn=partial(
            moe, experts_field="num_local_experts", width="intermediate_size", router="router"
        ),
        ffn_kinds=all_moe,
        **LAYER_NORM,
    ),
    "qwen2_moe": QWEN2.but(
        attention=partial(gqa, bias="qkv_bias", output_bias=False),
        ffn=SHARED_EXPERT,
        ffn_kinds=stepped,
        kinds=qwen2_moe_windows,
    ),
    "qwen3_moe": QWEN3.but(ffn=dense_or_moe(gated, moe), ffn_kinds=stepped, kinds=qwen_moe_windows),
    "solar_open": Style(
        attention=partial(gqa, bias="attention_bias", output_bias=False),
        ffn=routed,
        ffn_kinds=all_moe,
    ),
}
ALIASES = {
    "glm4v_moe_text": "glm4_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_omni_moe_text": "qwen3_moe",
}
