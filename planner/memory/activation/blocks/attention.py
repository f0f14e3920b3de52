"""Softmax attention of a layer as transformers runs it, through SDPA or written out (eager).

Projections, rotary embedding, cache, attention, output projection.
"""

from ....models.spec import Attention
from ..cache import append, as_cached
from ..forward_step import Attend, ForwardStep
from ..kvpareto_engine import packed
from ..live_tensors import LiveTensors
from .norms import norm
from .rotary import apply_rotary


def attention(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Take the mixer's output (rows x hidden); the normalised input belongs to the caller."""
    rows = live.take_all(step.rounded(step.hidden))
    query, keys, values, kept = _projected(live, mixer, step)
    live.drop(rows)
    mixer = mixer if step.attend is Attend.PACKED else as_cached(mixer)
    if has_rotary(mixer, step):
        query, keys, more = apply_rotary(live, mixer, query, keys, step)
        kept += more
    beside = append(live, mixer, step)
    if step.fused_layer:  # its code keeps their names
        beside += keys + values
    else:
        live.drop(keys, values)
    out = _attended(live, mixer, step)
    live.drop(beside)
    if mixer.output_gate:
        switch = live.take(out)
        gated = live.take(out)
        live.drop(switch, out)
        out = gated
    rows = live.take_all(step.rounded(mixer.query_heads * mixer.value_dim))
    projected = live.take(step.bytes(step.hidden))
    live.drop(out, query, kept, rows)
    return projected


def has_rotary(mixer: Attention, step: ForwardStep) -> bool:
    """Whether queries and keys are rotated by rotary position tables."""
    return mixer.rope and not step.traits.position_embeddings


def _projected(live: LiveTensors, mixer: Attention, step: ForwardStep) -> tuple[int, int, int, int]:
    """Take queries, keys and values, and what stays to the end beside them.

    Where one matrix makes all three they are views of its product, which stays; or copies, where
    groups are then repeated to all heads (Falcon).
    """
    heads, dim = mixer.query_heads, mixer.head_dim
    kv_heads = 0 if mixer.shares_kv_with is not None else mixer.kv_heads
    query_bytes = step.bytes(heads * dim * (2 if mixer.output_gate else 1))
    keys_bytes = step.bytes(kv_heads * dim)
    values_bytes = step.bytes(kv_heads * mixer.value_dim)
    if step.traits.fused_qkv:
        product = live.take(query_bytes + keys_bytes + values_bytes)
        if mixer.expanded_heads is None or step.attend is Attend.PACKED:
            return 0, 0, 0, product
        wide = step.bytes(mixer.expanded_heads * dim)
        return live.take(wide), live.take(wide), live.take(wide), product
    query = live.take(query_bytes)
    kept = live.take(query_bytes // 2) if mixer.output_gate else 0  # the gate, copied out
    if mixer.qk_norm:
        normed = _normed(live, heads, dim, step)
        live.drop(query)
        query = normed
    keys = live.take(keys_bytes)
    if mixer.qk_norm and keys:
        normed = _normed(live, kv_heads, dim, step)
        live.drop(keys)
        keys = normed
    return query, keys, live.take(values_bytes), kept


def _normed(live: LiveTensors, heads: int, dim: int, step: ForwardStep) -> int:
    return norm(live, "rms", step.rows * heads, dim, step)


def _attended(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    if step.attend is Attend.PACKED:
        return packed(live, mixer, step)
    if step.attend is Attend.EAGER:
        from ..eager import eager

        return eager(live, mixer, step)
    from ..sdpa import sdpa

    return sdpa(live, mixer, step)
