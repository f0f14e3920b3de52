"""Mamba-1 and Mamba-2 in transformers' torch code, and short convolutions.

Mamba-2's fallback forms products over (block x block x heads x state) and (heads x channels x
state) for every token before it sums them: gigabytes for a prompt of a few thousand tokens.
Mamba-1's keeps (channels x state) numbers a token. (modeling_falcon_h1.mamba2_chunk_scan,
modeling_jamba.)
"""

from ....models.spec import RecurrentState
from ..forward_step import Stage
from ..live_tensors import Liveness


def state_space(m: Liveness, mixer: RecurrentState, stage: Stage) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    projected = m.take(stage.bytes(mixer.width))
    inner = mixer.heads * mixer.value_dim
    convolved = m.take(stage.bytes(mixer.conv and mixer.width - inner))
    active = m.take(stage.bytes(mixer.conv and mixer.width - inner))
    m.drop(convolved)
    if mixer.kind == "mamba2":
        out = _mamba2(m, mixer, stage)
    elif mixer.kind == "mamba1":
        out = _mamba1(m, mixer, stage)
    else:
        out = m.take(stage.bytes(inner))
    if not stage.past:
        m.take(stage.batch * (mixer.state * 4 + mixer.conv * stage.element))
    gated = m.take(stage.bytes(inner))
    m.drop(out, active)
    result = m.take(stage.bytes(stage.hidden))
    m.drop(gated, projected)
    return result


def _mamba2(m: Liveness, mixer: RecurrentState, stage: Stage) -> int:
    heads, channels, state = mixer.heads, mixer.value_dim, mixer.key_dim
    if stage.new == 1 and stage.past:
        m.touch(3 * stage.batch * mixer.state * 4)
        return m.take(stage.rows * heads * channels * 4)
    block = mixer.block
    tokens = stage.batch * -(-stage.new // block) * block
    value = tokens * heads * channels * 4
    key = tokens * heads * state * 4
    square = tokens * block * heads * 4
    start = m.live
    skipped = m.take(value)
    inputs = [m.take(size) for size in (value, key, key)]
    m.touch(sum(inputs))  # padded copies
    decays = m.take(square)
    m.touch(2 * square)
    m.touch(square * state + square)  # C x B for all pairs of a block, before its sum
    scores = m.take(square)
    weights = m.take(square)
    m.touch(square)
    diagonal = m.take(value)
    m.touch(square * channels)  # weights x values, before their sum
    decayed = m.take(key)
    m.touch(value * state)  # values x keys, before their sum
    blocks = m.take(value * state // block)
    m.touch(2 * blocks)
    m.take(value * state)  # C x states stays to the end
    m.touch(2 * value)
    m.drop(decays, scores, weights, diagonal, decayed, blocks, skipped)
    m.drop(m.live - start)
    return m.take(stage.rows * heads * channels * 4)


def _mamba1(m: Liveness, mixer: RecurrentState, stage: Stage) -> int:
    channels, state = mixer.value_dim, mixer.key_dim
    if stage.new == 1 and stage.past:
        m.touch(3 * stage.batch * mixer.state * 4)
        return m.take(stage.bytes(channels))
    products = stage.rows * channels * state * 4
    start = m.live
    for _ in range(3):  # discrete A, discrete B, and B x input
        m.take(products)
    for _ in range(3):  # time steps, their softplus, the scan's outputs
        m.take(stage.bytes(channels))
    m.touch(2 * stage.rows * channels * 4)  # the skip connection
    m.drop(m.live - start)
    return m.take(stage.bytes(channels))
