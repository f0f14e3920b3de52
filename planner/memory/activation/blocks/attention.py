"""Softmax attention of a layer as transformers runs it, through SDPA or written out (eager).

Projections, rotary turn, cache, attention, output projection.
"""

from ....models.spec import Attention
from ..cache import append, as_cached
from ..eager import eager
from ..forward_step import Attend, Stage
from ..kvpareto_engine import packed
from ..live_tensors import Liveness
from ..sdpa import sdpa
from .norms import norm
from .rotary import turn_queries_and_keys


def attention(m: Liveness, mixer: Attention, stage: Stage) -> int:
    """Take the mixer's output (rows x hidden); the normalised input belongs to the caller."""
    query, keys, values, kept = _projected(m, mixer, stage)
    mixer = mixer if stage.attend is Attend.PACKED else as_cached(mixer)
    if turns(mixer, stage):
        query, keys, more = turn_queries_and_keys(m, mixer, query, keys, stage)
        kept += more
    beside = append(m, mixer, stage)
    if stage.fused_layer:  # its code keeps their names
        beside += keys + values
    else:
        m.drop(keys, values)
    out = _attended(m, mixer, stage)
    m.drop(beside)
    if mixer.output_gate:
        switch = m.take(out)
        gated = m.take(out)
        m.drop(switch, out)
        out = gated
    projected = m.take(stage.bytes(stage.hidden))
    m.drop(out, query, kept)
    return projected


def turns(mixer: Attention, stage: Stage) -> bool:
    """Whether queries and keys are turned by rotary position tables."""
    return mixer.rope and not stage.habits.position_embeddings


def _projected(m: Liveness, mixer: Attention, stage: Stage) -> tuple[int, int, int, int]:
    """Take queries, keys and values, and what stays to the end beside them.

    Where one matrix makes all three they are views of its product, which stays; or copies, where
    groups are then repeated to all heads (Falcon).
    """
    heads, dim = mixer.query_heads, mixer.head_dim
    kv_heads = 0 if mixer.shares_kv_with is not None else mixer.kv_heads
    query_bytes = stage.bytes(heads * dim * (2 if mixer.output_gate else 1))
    keys_bytes = stage.bytes(kv_heads * dim)
    values_bytes = stage.bytes(kv_heads * mixer.value_dim)
    if stage.habits.fused_qkv:
        product = m.take(query_bytes + keys_bytes + values_bytes)
        if mixer.expanded_heads is None or stage.attend is Attend.PACKED:
            return 0, 0, 0, product
        wide = stage.bytes(mixer.expanded_heads * dim)
        return m.take(wide), m.take(wide), m.take(wide), product
    query = m.take(query_bytes)
    kept = m.take(query_bytes // 2) if mixer.output_gate else 0  # the gate, copied out
    if mixer.qk_norm:
        normed = _normed(m, heads, dim, stage)
        m.drop(query)
        query = normed
    keys = m.take(keys_bytes)
    if mixer.qk_norm and keys:
        normed = _normed(m, kv_heads, dim, stage)
        m.drop(keys)
        keys = normed
    return query, keys, m.take(values_bytes), kept


def _normed(m: Liveness, heads: int, dim: int, stage: Stage) -> int:
    return norm(m, "rms", stage.rows * heads, dim, stage)


def _attended(m: Liveness, mixer: Attention, stage: Stage) -> int:
    if stage.attend is Attend.PACKED:
        return packed(m, mixer, stage)
    if stage.attend is Attend.EAGER:
        return eager(m, mixer, stage)
    return sdpa(m, mixer, stage)
