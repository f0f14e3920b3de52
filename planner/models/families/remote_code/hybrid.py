"""Hybrids whose code comes with their checkpoint: PLaMo 2 and MiniCPM-SALA."""

from collections.abc import Sequence
from dataclasses import replace

from ...config_fields import Fields
from ...spec import Attention, Bounds, Mixer, RecurrentState, Role
from ...tensor_list import Tensors
from ..blocks.attention import gqa, heads
from ..blocks.ffn import gated
from ..blocks.layer_types import FULL, LINEAR, SLIDING
from ..decoder import Block, Decoder, Style, text_decoder

# What Plamo2Config takes absent fields as.
_PLAMO = {
    "hidden_size_per_head": 128,
    "attention_window_size": 2048,
    "mamba_d_state": 64,
    "mamba_d_conv": 4,
    "mamba_num_heads": 64,
    "mamba_step": 2,
    "mamba_chunk_size": 256,
    "mamba_enabled": True,
    "tie_word_embeddings": True,
}


def plamo2(f: Fields, t: Tensors) -> Decoder:
    """PLaMo 2 (Samba): Mamba layers and attention by turns, most of it within a window."""
    own = Fields(f.raw, kind=f.kind, path=f.path, defaults=_PLAMO, notes=f.notes)
    return text_decoder(own, t, PLAMO2)


def plamo2_kinds(f: Fields, layers: int) -> Sequence[str]:
    """A layer is attention at half a step (the last, where a model is that short)."""
    if not f.flag("mamba_enabled"):
        mamba = [False] * layers
    else:
        step = f.count("mamba_step", low=2)
        short = layers <= step // 2
        mamba = [i != layers - 1 if short else i % step != step // 2 for i in range(layers)]
    full = set(f.counts("full_attention_idx") or ())
    return [
        LINEAR if is_mamba else (FULL if i in full else SLIDING) for i, is_mamba in enumerate(mamba)
    ]


def plamo2_mixer(b: Block, kind: str) -> Mixer:
    return _plamo_mamba(b) if kind == LINEAR else _plamo_attention(b, kind)


def _plamo_attention(b: Block, kind: str) -> Attention:
    f, t = b.f, b.t
    query, dim = f.count("num_attention_heads"), f.count("hidden_size_per_head")
    kv = f.count("num_key_value_heads", query)
    with t.scope("mixer."):
        t.linear("qkv_proj", b.hidden, (query + 2 * kv) * dim)
        t.linear("o_proj", query * dim, b.hidden)
        t.add("q_weight", (query, dim), Role.NORM)
        t.add("k_weight", (kv, dim), Role.NORM)
    window = f.count("attention_window_size", high=2**31) + 1 if kind == SLIDING else None
    return Attention(query, kv, dim, dim, window, qk_norm=True)


def _plamo_mamba(b: Block) -> RecurrentState:
    """Mamba 2 with one pair of B and C, made from the convolved input, and norms over them."""
    f, t = b.f, b.t
    count, dim = f.count("mamba_num_heads"), f.count("hidden_size_per_head")
    state, kernel = f.count("mamba_d_state"), f.count("mamba_d_conv", low=2)
    inner, rank = count * dim, max(64, b.hidden // 16)
    with t.scope("mixer."):
        t.linear("in_proj", b.hidden, 2 * inner)
        t.add("conv1d.weight", (inner, 1, kernel), Role.CONV)
        t.linear("bcdt_proj", inner, rank + 2 * state)
        t.linear("dt_proj", rank, count)
        for name in ("dt_bias", "A_log", "D"):
            t.add(name, (count,), Role.OTHER)
        for name, width in (("dt", rank), ("B", state), ("C", state)):
            t.add(f"{name}_norm_weight", (width,), Role.NORM)
        t.linear("out_proj", inner, b.hidden)
    return RecurrentState(
        "mamba2",
        state=inner * state,
        conv=inner * (kernel - 1),
        heads=count,
        key_dim=state,
        value_dim=dim,
        width=2 * inner,
        state_dtype="float32",
        block=f.count("mamba_chunk_size"),
    )


def sala(f: Fields, t: Tensors) -> Decoder:
    """MiniCPM-SALA: a quarter of the layers attend sparsely, the others keep one matrix a head.

    Sparse layers pool their keys to choose blocks. Code that keeps the pools adds one key for each
    16 and one for each 64 tokens, code that pools anew adds none: the bounds hold both.
    """
    decoder = text_decoder(f, t, SALA)
    kept = [m for layer in decoder.layers for m in layer.mixers if isinstance(m, Attention)]
    low = sum(2 * 2 * m.kv_heads * m.head_dim for m in kept)
    pools = sum(2 * m.kv_heads * m.head_dim for m in kept) * 5 // 64
    because = f"pooled keys of {f.kind}'s sparse layers may be kept beside its keys"
    bounds = (Bounds("kv_bytes_per_token", low, low + pools, because),) if kept else ()
    return replace(decoder, bounds=bounds)


def sala_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = f.texts("mixer_types", layers)
    if given is None:
        raise f.missing("mixer_types")
    for kind in given:
        if kind not in ("minicpm4", "lightning", "lightning-attn"):
            raise f.wrong("mixer_types", kind, "minicpm4 or lightning-attn")
    return [FULL if kind == "minicpm4" else LINEAR for kind in given]


def sala_mixer(b: Block, kind: str) -> Mixer:
    """Attention with a gate, or lightning attention, whose state is a matrix for each head."""
    f, t = b.f, b.t
    bias = f.flag("attention_bias")
    if kind == FULL:
        mixer = gqa(b, kind, bias=bias)
        if f.flag("attn_use_output_gate"):
            t.linear("self_attn.o_gate", b.hidden, mixer.query_heads * mixer.head_dim)
        return mixer
    query, kv, _ = heads(f, b.hidden)
    query, kv = f.count("lightning_nh", query), f.count("lightning_nkv", kv)
    dim = f.count("lightning_head_dim", f.count("head_dim", b.hidden // query))
    width = query * dim
    with t.scope("self_attn."):
        t.linear("q_proj", b.hidden, width, bias)
        t.linear("k_proj", b.hidden, kv * dim, bias)
        t.linear("v_proj", b.hidden, kv * dim, bias)
        t.linear("o_proj", width, b.hidden, bias)
        if f.flag("qk_norm", True):
            t.norm("q_norm", dim)
            t.norm("k_norm", dim)
        if f.flag("use_output_norm"):
            t.norm("o_norm", width)
        if f.flag("use_output_gate"):
            t.linear("z_proj", b.hidden, width)
    state = query * dim * dim
    return RecurrentState("lightning", state, 0, query, dim, dim, 4 * width, state_dtype="float32")


PLAMO2 = Style(
    attention=plamo2_mixer,
    ffn=lambda b, kind: gated(b, fused="gate_up_proj"),
    kinds=plamo2_kinds,
    norms=("pre_mixer_norm", "post_mixer_norm", "pre_mlp_norm", "post_mlp_norm"),
    norm="rms_offset",
    sandwich=True,
    layers="layers.layers",
)
SALA = Style(attention=sala_mixer, ffn=gated, kinds=sala_kinds)
READERS = {"plamo2": plamo2, "minicpm_sala": sala}
