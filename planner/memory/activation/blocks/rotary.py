"""Rotary position embedding: x * cos + rotate_half(x) * sin, for queries and then for keys."""

from ....models.spec import Attention
from ..forward_step import Stage
from ..live_tensors import Liveness


def turn_queries_and_keys(
    m: Liveness, mixer: Attention, query: int, keys: int, stage: Stage
) -> tuple[int, int, int]:
    """Take turned queries and keys for the given ones; third, what stays alive beside them.

    Where only part of each head turns, the rest is joined on; families that split heads in the
    attention's forward keep all the pieces.
    """
    kv_heads = mixer.kv_heads if mixer.shares_kv_with is None else 0
    tables = _spread_tables(m, mixer, stage)
    upcast = m.take(2 * query) + m.take(2 * keys) if stage.habits.float_turn else 0
    turned_query, query_part = _turned(m, mixer.query_heads, mixer, stage)
    turned_keys, keys_part = _turned(m, kv_heads, mixer, stage)
    if _wide(stage):
        wide = turned_query + turned_keys
        turned_query = m.take(stage.bytes(mixer.query_heads * mixer.head_dim))
        turned_keys = m.take(stage.bytes(kv_heads * mixer.head_dim))
        m.drop(wide)
    m.drop(upcast, tables)
    if stage.habits.split_rotary:
        return turned_query, turned_keys, query + keys + query_part + keys_part
    m.drop(query, keys, query_part, keys_part)
    return turned_query, turned_keys, 0


def _wide(stage: Stage) -> bool:
    """Whether the turn is float32 although activations are not: both are cast back at the end."""
    wide = stage.habits.float_rotary or stage.habits.float_turn
    return wide and stage.element != 4 and not stage.fused_layer


def _spread_tables(m: Liveness, mixer: Attention, stage: Stage) -> int:
    """Cosines and sines with every entry repeated for the two channels of a pair."""
    if not stage.habits.spread_tables or stage.fused_layer:
        return 0
    element = 4 if stage.habits.float_rotary else stage.element
    width = mixer.rotary_dim or mixer.head_dim
    return sum(m.take(stage.new * width * element) for _ in ("cos", "sin"))


def _turned(m: Liveness, heads: int, mixer: Attention, stage: Stage) -> tuple[int, int]:
    """(the turned heads, the part of them that was joined in), while the input is alive."""
    part = mixer.rotary_dim or mixer.head_dim
    if stage.fused_layer and part == mixer.head_dim:
        return m.take(stage.bytes(heads * part)), 0
    plain = stage.bytes(heads * part)
    wide = plain * 4 // stage.element if _wide(stage) else plain
    cosine = m.take(wide)
    turning = wide if stage.habits.float_turn else plain
    half = m.take(turning // 2)
    rotated = m.take(turning)
    m.drop(half)
    if wide != turning:
        upcast = m.take(wide)
        m.drop(rotated)
        rotated = upcast
    sine = m.take(wide)
    m.drop(rotated)
    turned = m.take(wide)
    m.drop(cosine, sine)
    if part == mixer.head_dim:
        return turned, 0
    return m.take(stage.bytes(heads * mixer.head_dim)), turned
