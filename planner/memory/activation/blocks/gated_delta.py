"""The gated delta rule in transformers' torch code (Qwen3-Next, Qwen3.5).

Prefill works on blocks of 64 tokens in float32: queries, keys and values of every value head,
their scaled copies, and 64 x 64 matrices for each block stay alive together. Decode updates the
state in a few copies. (modeling_qwen3_next.torch_chunk_gated_delta_rule.)
"""

from ....models.spec import RecurrentState
from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors
from .convolution import convolved
from .gated_delta_blocks import by_channel_blocks, recent_blocks
from .norms import norm

BLOCK = 64  # tokens


def gated_delta(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    values = mixer.heads * mixer.value_dim
    mixed = mixer.width - values
    keys = (mixed - values) // 2
    projected = _projected(live, mixer, values, step)
    grouped = mixer.heads * mixer.key_dim > keys
    if step.recent or mixer.decays_by_channel:
        return _recent(live, mixer, step, projected, mixed, grouped)
    inner = _convolved(live, mixed, step)
    repeated = live.take(2 * step.bytes(mixer.heads * mixer.key_dim)) if grouped else 0
    out = _step(live, mixer, step) if step.new == 1 and step.past else _blocks(live, mixer, step)
    live.take(_new_state(mixer, step))
    normed = _gated_norm(live, values, step)
    live.drop(out, inner, repeated)
    result = live.take(step.bytes(step.hidden))
    live.drop(normed, projected)
    return result


def _recent(
    live: LiveTensors,
    mixer: RecurrentState,
    step: ForwardStep,
    projected: int,
    mixed: int,
    grouped: bool,
) -> int:
    """The rest of the mixer as transformers runs it since 5.20, `projected` taken."""
    values = mixer.heads * mixer.value_dim
    joined = live.take(step.bytes(mixed))
    inner = convolved(live, mixed, mixer.conv // mixed, step)
    live.drop(joined)
    if step.new == 1 and step.past:
        repeated = live.take(2 * step.bytes(mixer.heads * mixer.key_dim)) if grouped else 0
        live.touch(3 * step.batch * mixer.state * 4)
        live.drop(repeated)
        out = live.take(step.bytes(values))
    elif mixer.decays_by_channel:
        out = by_channel_blocks(live, mixer, step)
    else:
        out = recent_blocks(live, mixer, step, grouped)
    if not step.past and not step.fused:  # states are made by the first pass
        live.take(_new_state(mixer, step))
    normed = _gated_norm(live, values, step)
    live.drop(out, inner)
    result = live.take(step.bytes(step.hidden))
    live.drop(normed, projected)
    return result


def _projected(live: LiveTensors, mixer: RecurrentState, values: int, step: ForwardStep) -> int:
    """What stays of the projections: the output gate, decay and beta; of one matrix, all."""
    small = live.take(step.bytes(2 * mixer.heads))
    if step.traits.fused_gated_delta:
        # gates are copied out, the product they come from stays
        return small + live.take(step.bytes(mixer.width)) + live.take(step.bytes(values))
    return small + live.take(step.bytes(values))


def _new_state(mixer: RecurrentState, step: ForwardStep) -> int:
    """States are made once, by the first pass, and overwritten in place after it."""
    if step.past:
        return 0
    return step.batch * (mixer.state * 4 + mixer.conv * step.element)


def _convolved(live: LiveTensors, channels: int, step: ForwardStep) -> int:
    """Joined, convolved with padding, activated: three copies, one of which stays."""
    joined = live.take(step.bytes(channels))
    convolved = live.take(step.bytes(channels))
    active = live.take(step.bytes(channels))
    live.drop(joined, convolved)
    return active


def _blocks(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    tokens = step.batch * -(-step.new // BLOCK) * BLOCK
    key = tokens * mixer.heads * mixer.key_dim * 4
    value = tokens * mixer.heads * mixer.value_dim * 4
    square = tokens * mixer.heads * BLOCK * 4
    start = live.nbytes
    for size in (key, key, value):  # float32 copies of queries, keys and values
        live.take(size)
    padded = [live.take(size) for size in (key, key, value)]
    live.drop(*padded)
    for size in (value, key):  # values and keys times beta
        live.take(size)
    for _ in range(3):  # decays between tokens, the triangular system, attention in the block
        live.touch(2 * square)
        live.take(square)
    for size in (key, value, key, value):  # decayed keys, the solved system, the output
        live.take(size)
    live.take(2 * step.batch * mixer.state * 4)  # the state, old and new
    live.touch(key)  # queries and keys are decayed once more
    live.drop(live.nbytes - start)
    return live.take(step.bytes(mixer.heads * mixer.value_dim))


def _step(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    """One token: the state decayed, read, corrected and read again, each time a new copy."""
    live.touch(4 * step.batch * mixer.state * 4)
    return live.take(step.bytes(mixer.heads * mixer.value_dim))


def _gated_norm(live: LiveTensors, values: int, step: ForwardStep) -> int:
    normed = norm(live, "rms", step.rows, values, step)
    live.touch(3 * step.rows * values * 4)  # the gate, its activation and the product in float32
    return normed
