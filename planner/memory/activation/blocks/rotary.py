"""Rotary position embedding: x * cos + rotate_half(x) * sin, for queries and then for keys."""

from ....models.spec import Attention
from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors


def apply_rotary(
    live: LiveTensors, mixer: Attention, query: int, keys: int, step: ForwardStep
) -> tuple[int, int, int]:
    """Take rotated queries and keys for the given ones; third, what stays alive beside them.

    Where only part of each head is rotated, the rest is joined on; families that split heads in the
    attention's forward keep all the pieces.
    """
    kv_heads = mixer.kv_heads if mixer.shares_kv_with is None else 0
    tables = _spread_tables(live, mixer, step)
    upcast = live.take(2 * query) + live.take(2 * keys) if step.traits.upcast_rotary else 0
    rotated_query, query_part = _rotated(live, mixer.query_heads, mixer, step)
    rotated_keys, keys_part = _rotated(live, kv_heads, mixer, step)
    if _wide(step):
        wide = rotated_query + rotated_keys
        rotated_query = live.take(step.bytes(mixer.query_heads * mixer.head_dim))
        rotated_keys = live.take(step.bytes(kv_heads * mixer.head_dim))
        live.drop(wide)
    live.drop(upcast, tables)
    if step.traits.split_rotary:
        return rotated_query, rotated_keys, query + keys + query_part + keys_part
    live.drop(query, keys, query_part, keys_part)
    return rotated_query, rotated_keys, 0


def _wide(step: ForwardStep) -> bool:
    """Whether the rotation is float32 and activations are not: both are cast back at the end."""
    wide = step.traits.float_rotary or step.traits.upcast_rotary
    return wide and step.element != 4 and not step.fused_layer


def _spread_tables(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Cosines and sines with every entry repeated for the two channels of a pair."""
    if not step.traits.spread_tables or step.fused_layer:
        return 0
    element = 4 if step.traits.float_rotary else step.element
    width = mixer.rotary_dim or mixer.head_dim
    return sum(live.take(step.new * width * element) for _ in ("cos", "sin"))


def _rotated(live: LiveTensors, heads: int, mixer: Attention, step: ForwardStep) -> tuple[int, int]:
    """(the rotated heads, the part of them that was joined in), while the input is alive."""
    part = mixer.rotary_dim or mixer.head_dim
    if step.fused_layer and part == mixer.head_dim:
        return live.take(step.bytes(heads * part)), 0
    plain = step.bytes(heads * part)
    wide = plain * 4 // step.element if _wide(step) else plain
    cosine = live.take(wide)
    held = wide if step.traits.upcast_rotary else plain
    half = live.take(held // 2)
    rotated = live.take(held)
    live.drop(half)
    if wide != held:
        upcast = live.take(wide)
        live.drop(rotated)
        rotated = upcast
    sine = live.take(wide)
    live.drop(rotated)
    rotated = live.take(wide)
    live.drop(cosine, sine)
    if part == mixer.head_dim:
        return rotated, 0
    return live.take(step.bytes(heads * mixer.head_dim)), rotated
