"""Mamba-1 and Mamba-2 in transformers' torch code, and short convolutions.

Mamba-2's fallback forms products over (block x block x heads x state) and (heads x channels x
state) for every token before it sums them: gigabytes for a prompt of a few thousand tokens.
Mamba-1's keeps (channels x state) numbers a token. (modeling_falcon_h1.mamba2_chunk_scan,
modeling_jamba.)
"""

from ....models.spec import RecurrentState
from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors


def state_space(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    projected = live.take(step.bytes(mixer.width))
    inner = mixer.heads * mixer.value_dim
    convolved = live.take(step.bytes(mixer.conv and mixer.width - inner))
    active = live.take(step.bytes(mixer.conv and mixer.width - inner))
    live.drop(convolved)
    if mixer.kind == "mamba2":
        out = _mamba2(live, mixer, step)
    elif mixer.kind == "mamba1":
        out = _mamba1(live, mixer, step)
    else:
        out = live.take(step.bytes(inner))
    if not step.past:
        live.take(step.batch * (mixer.state * 4 + mixer.conv * step.element))
    gated = live.take(step.bytes(inner))
    live.drop(out, active)
    result = live.take(step.bytes(step.hidden))
    live.drop(gated, projected)
    return result


def _mamba2(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    heads, channels, state = mixer.heads, mixer.value_dim, mixer.key_dim
    if step.new == 1 and step.past:
        live.touch(3 * step.batch * mixer.state * 4)
        return live.take(step.rows * heads * channels * 4)
    block = mixer.block
    tokens = step.batch * -(-step.new // block) * block
    value = tokens * heads * channels * 4
    key = tokens * heads * state * 4
    square = tokens * block * heads * 4
    start = live.nbytes
    skipped = live.take(value)
    inputs = [live.take(size) for size in (value, key, key)]
    live.touch(sum(inputs))  # padded copies
    decays = live.take(square)
    live.touch(2 * square)
    live.touch(square * state + square)  # C x B for all pairs of a block, before its sum
    scores = live.take(square)
    weights = live.take(square)
    live.touch(square)
    diagonal = live.take(value)
    live.touch(square * channels)  # weights x values, before their sum
    decayed = live.take(key)
    live.touch(value * state)  # values x keys, before their sum
    blocks = live.take(value * state // block)
    live.touch(2 * blocks)
    live.take(value * state)  # C x states stays to the end
    live.touch(2 * value)
    live.drop(decays, scores, weights, diagonal, decayed, blocks, skipped)
    live.drop(live.nbytes - start)
    return live.take(step.rows * heads * channels * 4)


def _mamba1(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    channels, state = mixer.value_dim, mixer.key_dim
    if step.new == 1 and step.past:
        live.touch(3 * step.batch * mixer.state * 4)
        return live.take(step.bytes(channels))
    products = step.rows * channels * state * 4
    start = live.nbytes
    for _ in range(3):  # discrete A, discrete B, and B x input
        live.take(products)
    for _ in range(3):  # time steps, their softplus, the scan's outputs
        live.take(step.bytes(channels))
    live.touch(2 * step.rows * channels * 4)  # the skip connection
    live.drop(live.nbytes - start)
    return live.take(step.bytes(channels))
