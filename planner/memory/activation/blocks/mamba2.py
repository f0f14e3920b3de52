"""Mamba-2 in transformers' torch code since 5.20: products of blocks as batched matrix products.

The scan works in float32 on blocks of the sequence, padded to whole ones; each head has keys of its
own, whatever its group, and three (block x block) matrices a head stay alive to the end of the
function. (modeling_granitemoehybrid.mamba2_chunk_scan, the same in Bamba, Falcon-H1, Nemotron-H and
Zamba 2; 5.17's is state_space.py.)
"""

from ....models.spec import RecurrentState
from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors
from .convolution import convolved


def mamba2(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    inner = mixer.heads * mixer.value_dim
    channels = mixer.width - inner - mixer.heads
    start = live.nbytes
    live.take(step.bytes(mixer.width))
    kernel = mixer.conv // channels
    convolved(live, channels, kernel, step)
    if not step.past and not step.fused:  # states are made by the first pass
        live.take(step.batch * mixer.conv * step.element)
    if step.new == 1 and step.past:
        live.touch(16 * step.batch * mixer.state)  # decays, inputs, and the state, old and new
        scanned = step.rows * inner * step.element
    else:
        _scan(live, mixer, step)
        if not step.past and not step.fused:
            live.take(step.batch * mixer.state * 4)
        scanned = step.rows * inner * 4
    normed = _gated_norm(live, inner, scanned, step)
    result = live.take(step.bytes(step.hidden))
    live.drop(normed)
    live.drop(live.nbytes - start - result)
    return result


def _scan(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> None:
    """What it gives, and the states of all blocks, stay to the end of the mixer."""
    heads, channels, state, block = mixer.heads, mixer.value_dim, mixer.key_dim, mixer.block
    blocks = step.batch * -(-step.new // block)
    tokens = blocks * block
    value, key = tokens * heads * channels * 4, tokens * heads * state * 4
    small, square = tokens * heads * 4, tokens * block * heads * 4
    one = heads * channels * state * 4
    begin = live.nbytes
    live.take(step.bytes(heads))  # time steps
    own = step.rows * heads * 4
    plain = [live.take(own * channels)]
    plain += [live.take(own * state), live.take(own * state)]
    padded = live.take(value)
    live.take(value)  # the skip connection
    live.drop(padded)
    plain.append(live.take(own * channels))  # inputs times their steps
    live.drop(plain.pop(0))
    plain.append(live.take(own))
    for size in (value, small, key, key):
        live.take(size)
    live.drop(*plain)
    live.take(small)  # summed decays
    spread = live.take(square)
    summed = live.take(square)
    masked = live.take(square)
    live.drop(spread, summed)
    live.take(square)
    live.drop(masked)
    copies = live.take(key) + live.take(key)
    live.take(square)
    live.drop(copies)
    live.take(square)
    live.touch(2 * value)
    live.take(value)  # of a block's own tokens
    live.take(small)
    live.take(key)  # decayed keys
    copies = live.take(key) + live.take(value)
    states = live.take(blocks * one)
    live.drop(copies)
    if not step.past:
        live.take(step.batch * one)  # an empty state
    joined = live.take((blocks + step.batch) * one)
    live.drop(states)
    copied = live.take((blocks + step.batch) * one)
    found = live.take((blocks + step.batch) * one)
    live.drop(copied, joined)
    live.take(small)
    copies = live.take(key) + live.take(blocks * one)
    live.take(value)
    live.drop(copies)
    live.take(value)
    both = live.take(value)
    ordered = live.take(value)
    live.drop(both)
    live.take(value)
    live.drop(ordered)
    live.drop(live.nbytes - begin)
    live.take(value)
    live.take(found)


def _gated_norm(live: LiveTensors, inner: int, scanned: int, step: ForwardStep) -> int:
    """In float32, by the gate."""
    wide = step.rows * inner * 4
    upcast = live.take(wide) if scanned < wide else 0
    gate = live.take(wide)
    active = live.take(wide)
    live.drop(gate)
    gated = live.take(wide)
    live.drop(active, upcast)
    live.touch(wide)  # squares
    normed = live.take(wide)
    narrow = live.take(step.bytes(inner))
    out = live.take(step.bytes(inner))
    live.drop(narrow, normed, gated)
    return out
