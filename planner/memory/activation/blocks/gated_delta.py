"""The gated delta rule in transformers' torch code (Qwen3-Next, Qwen3.5).

Prefill works on blocks of 64 tokens in float32: queries, keys and values of every value head,
their scaled copies, and 64 x 64 matrices for each block stay alive together. Decode updates the
state in a few copies. (modeling_qwen3_next.torch_chunk_gated_delta_rule.)
"""

from ....models.spec import RecurrentState
from ..forward_step import Stage
from ..live_tensors import Liveness
from .norms import norm

BLOCK = 64  # tokens


def gated_delta(m: Liveness, mixer: RecurrentState, stage: Stage) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    values = mixer.heads * mixer.value_dim
    mixed = mixer.width - values
    keys = (mixed - values) // 2
    projected = _projected(m, mixer, values, stage)
    inner = _convolved(m, mixed, stage)
    grouped = mixer.heads * mixer.key_dim > keys
    repeated = m.take(2 * stage.bytes(mixer.heads * mixer.key_dim)) if grouped else 0
    out = _step(m, mixer, stage) if stage.new == 1 and stage.past else _blocks(m, mixer, stage)
    m.take(_new_state(mixer, stage))
    normed = _gated_norm(m, values, stage)
    m.drop(out, inner, repeated)
    result = m.take(stage.bytes(stage.hidden))
    m.drop(normed, projected)
    return result


def _projected(m: Liveness, mixer: RecurrentState, values: int, stage: Stage) -> int:
    """What stays of the projections: the output gate, decay and beta; of one matrix, all."""
    small = m.take(stage.bytes(2 * mixer.heads))
    if stage.habits.fused_gated_delta:
        # gates are copied out, the product they come from stays
        return small + m.take(stage.bytes(mixer.width)) + m.take(stage.bytes(values))
    return small + m.take(stage.bytes(values))


def _new_state(mixer: RecurrentState, stage: Stage) -> int:
    """States are made once, by the first pass, and overwritten in place after it."""
    if stage.past:
        return 0
    return stage.batch * (mixer.state * 4 + mixer.conv * stage.element)


def _convolved(m: Liveness, channels: int, stage: Stage) -> int:
    """Joined, convolved with padding, activated: three copies, one of which stays."""
    joined = m.take(stage.bytes(channels))
    convolved = m.take(stage.bytes(channels))
    active = m.take(stage.bytes(channels))
    m.drop(joined, convolved)
    return active


def _blocks(m: Liveness, mixer: RecurrentState, stage: Stage) -> int:
    tokens = stage.batch * -(-stage.new // BLOCK) * BLOCK
    key = tokens * mixer.heads * mixer.key_dim * 4
    value = tokens * mixer.heads * mixer.value_dim * 4
    square = tokens * mixer.heads * BLOCK * 4
    start = m.live
    for size in (key, key, value):  # float32 copies of queries, keys and values
        m.take(size)
    padded = [m.take(size) for size in (key, key, value)]
    m.drop(*padded)
    for size in (value, key):  # values and keys times beta
        m.take(size)
    for _ in range(3):  # decays between tokens, the triangular system, attention in the block
        m.touch(2 * square)
        m.take(square)
    for size in (key, value, key, value):  # decayed keys, the solved system, the output
        m.take(size)
    m.take(2 * stage.batch * mixer.state * 4)  # the state, old and new
    m.touch(key)  # queries and keys are decayed once more
    m.drop(m.live - start)
    return m.take(stage.bytes(mixer.heads * mixer.value_dim))


def _step(m: Liveness, mixer: RecurrentState, stage: Stage) -> int:
    """One token: the state decayed, read, corrected and read again, each time a new copy."""
    m.touch(4 * stage.batch * mixer.state * 4)
    return m.take(stage.bytes(mixer.heads * mixer.value_dim))


def _gated_norm(m: Liveness, values: int, stage: Stage) -> int:
    normed = norm(m, "rms", stage.rows, values, stage)
    m.touch(3 * stage.rows * values * 4)  # the gate, its activation and the product in float32
    return normed
