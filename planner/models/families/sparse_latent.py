"""Latent attention with sparse indexers in newer shapes: Hunyuan 4, A.X K2 and dots3.

Hunyuan 4 shares indexers between layers, A.X K2 gates its norms and outputs, dots3 has latent
layers that slide, with heads and ranks of their own.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..config_fields import Fields
from ..spec import FFN, LatentAttention, MoEFFN, Role
from ..tensor_list import Tensors
from .blocks.ffn import gated, moe
from .blocks.layer_types import SLIDING
from .config_defaults import section
from .decoder import Block, Decoder, Style, layer_types, text_decoder
from .deepseek import SPARSE, dsa_everywhere, indexer_of, mla
from .moe import listed_or_first
from .unknown.not_planned import refuse


def hunyuan4_kinds(f: Fields, layers: int) -> Sequence[str]:
    own = ["full" if i == 0 or (i - 1) % 4 == 0 else "shared" for i in range(layers)]
    given = f.texts("indexer_types", layers) or own
    return ["own" if kind == "full" else "shared" for kind in given]


def hunyuan4_attention(b: Block, kind: str) -> LatentAttention:
    f, t = b.f, b.t
    mixer = mla(b, indexer=kind)
    streams = f.count("hc_mult", high=64)
    t.add("self_attn.sinks", (mixer.query_heads,), Role.OTHER)
    t.linear("self_attn.gate_proj", b.hidden, mixer.query_heads * mixer.value_dim)
    for name in ("attn_hc.", "ffn_hc."):
        t.add(f"{name}fn", (2 * streams, streams * b.hidden), Role.OTHER)
        t.add(f"{name}base", (2 * streams,), Role.OTHER)
        t.add(f"{name}scale", (2,), Role.OTHER)
    return mixer


def hunyuan4_head(b: Block) -> None:
    streams = b.f.count("hc_mult", high=64)
    b.t.add("hc_head.hc_fn", (streams, streams * b.hidden), Role.OTHER)
    b.t.add("hc_head.hc_base", (streams,), Role.OTHER)
    b.t.add("hc_head.hc_scale", (1,), Role.OTHER)


def axk2_attention(b: Block, kind: str) -> LatentAttention:
    """The query's latent is doubled, and one projection makes queries and gates of it."""
    f, t = b.f, b.t
    heads, rank, query_rank = (
        f.count(name) for name in ("num_attention_heads", "kv_lora_rank", "q_lora_rank")
    )
    nope, rope = f.count("qk_nope_head_dim"), f.count("qk_rope_head_dim", low=0)
    value, bias = f.count("v_head_dim"), f.flag("attention_bias")
    with t.scope("self_attn."):
        t.linear("q_a_proj", b.hidden, query_rank, bias)
        t.norm("q_a_layernorm", query_rank)
        t.linear("q_gate_proj", 2 * query_rank, heads * (nope + rope + value))
        t.linear("kv_a_proj_with_mqa", b.hidden, rank + rope, bias)
        t.norm("kv_a_layernorm", rank)
        t.linear("kv_b_proj", rank, heads * (nope + value))
        t.linear("o_proj", heads * value, b.hidden, bias)
        indexer = indexer_of(b, query_rank)
    gated_norm(b, "input_layernorm")
    return LatentAttention(heads, query_rank, rank, nope, rope, value, indexer)


def gated_norm(b: Block, name: str) -> None:
    narrow = b.f.count("gated_norm_rank")
    b.t.norm(f"{name}.norm", b.hidden)
    b.t.linear(f"{name}.mlp.fc1", b.hidden, narrow)
    b.t.linear(f"{name}.mlp.fc2", narrow, b.hidden)


def axk2_ffn(b: Block, kind: str) -> FFN:
    ffn: FFN = SPARSE(b, kind)
    if isinstance(ffn, MoEFFN):
        gated_norm(b, "post_attention_layernorm")
    else:
        b.t.norm("post_attention_layernorm", b.hidden)
    return ffn


def dots3_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    slides = f.flag("use_sliding_window", True)
    given = given or [
        "own" if not slides or i < 2 or i % 4 == 1 else SLIDING for i in range(layers)
    ]
    plain = f.raw.get("use_dsa") is False
    return [k if k == SLIDING else ("plain" if plain else "own") for k in given]


# What a sliding layer of dots3 has where the file does not say (Dots3NoteTextConfig).
_SLIDING = {
    "num_attention_heads": 64,
    "q_lora_rank": 1024,
    "kv_lora_rank": 1024,
    "qk_nope_head_dim": 192,
    "v_head_dim": 128,
    "head_dim": 256,
}


def dots3_attention(b: Block, kind: str) -> LatentAttention:
    """Latent attention: in a window of smaller latents, or over all tokens."""
    f, t = b.f, b.t
    if kind == SLIDING:
        own = Block(_sliding_fields(f), t, b.hidden)
        window = f.optional_count("sliding_window", high=2**31)
        window = window or f.count("sliding_window_size", 512, high=2**31)
        mixer = replace(mla(own), window=window)
    else:
        mixer = mla(b, indexer="own" if kind == "own" else "")
        if mixer.indexer is not None:  # its keys are kept as they were normed, in float32
            mixer = replace(mixer, indexer=replace(mixer.indexer, dtype="float32"))
    t.norm("self_attn.k_rope_only_layernorm", mixer.rope_dim)
    t.linear("self_attn.g_proj", b.hidden, mixer.query_heads)
    return mixer


def _sliding_fields(f: Fields) -> Fields:
    """The fields with those of sliding layers in place: `swa_...`, or one entry for each layer."""
    kinds = layer_types(f, f.layers()) or []
    each = f.mapping("per_layer_config") or {}
    at = str(kinds.index(SLIDING)) if SLIDING in kinds else ""
    entry = each.get(at)
    entry = entry if isinstance(entry, dict) else {}
    section = Fields(entry, kind=f.kind, path=f"{f.path}per_layer_config.{at}.", notes=f.notes)
    own = {
        name: section.count(name, f.count(f"swa_{name}", value)) for name, value in _SLIDING.items()
    }
    rotary, plain = own["head_dim"] - own["qk_nope_head_dim"], own["qk_nope_head_dim"]
    if rotary < 0 and not section.has("qk_rope_head_dim"):
        names = section if section.has("head_dim") else f
        name = "head_dim" if section.has("head_dim") else "swa_head_dim"
        raise names.wrong(name, own["head_dim"], f"at least the {plain} channels without positions")
    own = {**entry, "qk_rope_head_dim": section.count("qk_rope_head_dim", rotary, low=0), **own}
    return f.changed(**own)


def dots3_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b)
    f = b.f
    older = "moe_shared_expert_intermediate_size"
    each = f.count(older if f.has(older) else "shared_experts_intermediate_size")
    shared = each * f.count("n_shared_experts")
    return moe(b, experts_field="n_routed_experts", shared="shared_experts", shared_width=shared)


STYLES: dict[str, Style] = {
    "hy_v4": Style(
        attention=hunyuan4_attention,
        ffn=SPARSE,
        kinds=hunyuan4_kinds,
        ffn_kinds=listed_or_first(1),
        extra=hunyuan4_head,
    ),
    "axk2": Style(
        attention=axk2_attention,
        ffn=axk2_ffn,
        kinds=dsa_everywhere,
        ffn_kinds=listed_or_first(1),
        norms=(),
    ),
    "dots3_note_text": Style(
        attention=dots3_attention,
        ffn=dots3_ffn,
        kinds=dots3_kinds,
        ffn_kinds=listed_or_first(1),
    ),
}


def dots3_note(f: Fields, t: Tensors) -> Decoder:
    """The text model alone, where `architectures` names its class: the eye has experts too."""
    if f.texts("architectures") != ("Dots3NoteForCausalLM",):
        return refuse(f, t, "its vision tower of experts is not described in this version")
    return text_decoder(section(f, "text_config"), t, STYLES["dots3_note_text"])


READERS = {"dots3_note": dots3_note}
