"""The gated delta rule over a chunk, in transformers' torch code since 5.20.

Queries, keys and values of every value head are float32 in padded blocks of 64 tokens; a triangular
system is solved for each block, and the blocks follow each other through the state.
(modeling_qwen3_next.torch_chunk_gated_delta_rule; 5.17's is gated_delta.py's.)
"""

from ....models.spec import RecurrentState
from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors

BLOCK = 64  # tokens


def by_channel_blocks(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    """The same where every key channel decays on its own (Kimi delta attention): decays between the
    tokens of a block are (block x block x channels) a head, and three of them are alive together.
    (modeling_kimi_linear.chunk_kimi_delta_attention, in 5.17 too.)"""
    heads = mixer.heads
    tokens = step.batch * -(-step.new // BLOCK) * BLOCK
    key, value = (tokens * heads * d * 4 for d in (mixer.key_dim, mixer.value_dim))
    state, decays = step.batch * mixer.state * 4, tokens * heads * BLOCK * mixer.key_dim * 4
    start = live.nbytes
    live.take(step.rows * heads * mixer.key_dim * 4)  # decays, as they come
    for size in (
        key,
        key,
        value,
        value,
        key,
        key,
    ):  # values and keys, times beta too; summed decays
        live.take(size)
    live.take(decays)
    live.touch(2 * decays)  # times keys and queries, before their sum
    live.touch(2 * decays * BLOCK // tokens)
    for size in (value, key, value, value):  # solved values and keys, the output, and that joined
        live.take(size)
    live.touch(4 * state)
    live.take(state)
    out = live.take(step.bytes(heads * mixer.value_dim))
    live.drop(live.nbytes - start - out)
    return out + live.take(state)


def recent_blocks(
    live: LiveTensors, mixer: RecurrentState, step: ForwardStep, grouped: bool
) -> int:
    """Take what the rule gives, [.., heads x value_dim]; `grouped`: keys are repeated first."""
    heads = mixer.heads
    tokens = step.batch * -(-step.new // BLOCK) * BLOCK
    own_key, own_value = (step.rows * heads * d * 4 for d in (mixer.key_dim, mixer.value_dim))
    key, value = (tokens * heads * d * 4 for d in (mixer.key_dim, mixer.value_dim))
    square, state = tokens * heads * BLOCK * 4, step.batch * mixer.state * 4
    start = live.nbytes
    repeated = live.take(2 * step.bytes(heads * mixer.key_dim)) if grouped else 0
    upcast = [live.take(size) for size in (own_key, own_key, own_value)]
    live.drop(repeated)
    live.touch(2 * own_key)  # squares for the norm, and the normed
    padded = [live.take(size) for size in (key, key, value)]
    live.drop(*upcast)
    for size in (value, key):  # values and keys times beta
        live.take(size)
    live.touch(square)
    live.take(square)  # decays between tokens
    for _ in range(2):  # the triangular system, attention in the block
        live.touch(2 * square)
        live.take(square)
    for size in (key, value, key):  # decayed keys, the solved values and keys
        live.take(size)
    output = live.take(value)
    initial = 0 if step.past else live.take(state)
    for old in padded[:2]:  # queries and keys, decayed
        live.take(key)
        live.drop(old)
    live.take(2 * step.batch * BLOCK * heads * mixer.value_dim * 4)  # of the block that was last
    live.drop(initial)
    live.touch(4 * state)
    live.take(state)
    live.take(value)  # the output, its blocks joined
    live.drop(output)
    out = live.take(step.bytes(heads * mixer.value_dim))
    live.drop(live.nbytes - start - out)
    held = live.take(state)
    return out + held
