"""What a chunk's attention over staged segments allocates, as runtime/kernels/staged.py runs it.

The past goes through cuDNN's attention in segments, in parts side by side where queries are few;
a whole chunk alone through it too; the chunk with what is left of the past, or within a window,
through FlashAttention, which splits the keys of few queries over the GPU and sums the splits up in
float32. A batch goes a sequence at a time.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ...models.spec import Attention
from .forward_step import ForwardStep
from .live_tensors import LiveTensors
from .workspace import MULTIPROCESSORS, SEGMENT, goes_square, segment_tokens

STAGED_HEAD_DIM = 256  # widest head of the library's attention that staged segments go through
MOST_SPLITS = 128  # `num_splits_heuristic`'s limit as FlashAttention's flash_api.cpp calls it
ENOUGH = 0.85  # of the best efficiency: the fewest splits that reach it are taken

Ints = npt.NDArray[np.int64]


def stages_segments(mixer: Attention, new: int, tokens: int) -> bool:
    """Whether a chunk's attention goes through staged segments; else through Triton's kernel.

    `tokens` is what the cache was allocated for.
    """
    return (
        new > 1
        and mixer.softcap is None
        and (mixer.local_chunk is None or mixer.local_chunk >= tokens)
        and mixer.head_dim == mixer.value_dim <= STAGED_HEAD_DIM
        and mixer.head_dim % 8 == 0
        and (mixer.window_within(tokens) or 0) <= SEGMENT // 2
    )


def take_staged(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Take the attention output; queries belong to the caller."""
    out = live.take(step.bytes(mixer.query_heads * mixer.value_dim))
    before, window = live.nbytes, mixer.window_within(step.capacity)
    if window is not None:
        queries = min(step.new, SEGMENT - window + 1)  # queries whose windows fit a segment
        if queries < step.new:
            live.take(2 * _bytes(mixer, queries, step))  # a copy of these, and their result
        _own(live, mixer, queries, min(step.total, queries + window - 1), step)
    else:
        segments, _ = _cut(mixer, step.new, step.past)
        parts = _parts(mixer, step.new) if segments else 1
        if parts > 1:
            live.take(parts * _bytes(mixer, step.new, step))  # the queries, once for each part
        if segments:  # the last of them has a name to the end
            _result(live, mixer, step.new, step, parts)
        keys = _most_keys(mixer, step.new, step.past, step.previous == step.new)
        _own(live, mixer, step.new, keys, step)
    live.drop(live.nbytes - before)
    return out


def _result(
    live: LiveTensors, mixer: Attention, new: int, step: ForwardStep, parts: int = 1
) -> None:
    """Take what attention to one segment gives: results, and their log-sum-exps."""
    live.take(parts * _bytes(mixer, new, step))
    live.take(parts * new * mixer.query_heads * 4)


def _own(live: LiveTensors, mixer: Attention, new: int, keys: int, step: ForwardStep) -> None:
    """The chunk's queries and the keys that end with them."""
    _result(live, mixer, new, step)
    slides = mixer.window_within(step.capacity) is not None
    count = int(_last_splits(mixer, new, np.array([keys]), slides)[0])
    if count > 1:
        live.touch(count * new * mixer.query_heads * 4 * (_whole_width(mixer.head_dim) + 1))


def _last_splits(mixer: Attention, new: int, keys: Ints, slides: bool) -> Ints:
    """Splits of the last call, for numbers of keys [K]: none of a whole chunk that meets itself
    alone."""
    counts = _splits(mixer.query_heads, mixer.head_dim, new, keys, MULTIPROCESSORS)
    alone = np.array([not slides and goes_square(new, int(k)) for k in keys])
    return np.where(alone, 1, counts)


def _bytes(mixer: Attention, new: int, step: ForwardStep) -> int:
    return new * mixer.query_heads * mixer.value_dim * step.element


def _cut(mixer: Attention, new: int, past: int) -> tuple[int, int]:
    """Segments of the past, and keys of the last call."""
    segment = segment_tokens(mixer.kv_heads, mixer.head_dim, mixer.value_dim, new)
    quarter = segment // 4
    left = past % quarter
    segments = past // segment + (past % segment >= quarter)
    return (segments + 1, new) if left + new > max(new, segment) else (segments, left + new)


@lru_cache(maxsize=4096)
def _most_keys(mixer: Attention, new: int, past: int, chunks: bool) -> int:
    """Keys of the last call that split most; of `chunks`, over all of this size up to this one."""
    lengths = {_cut(mixer, new, past)[1]}
    if chunks:
        again = segment_tokens(mixer.kv_heads, mixer.head_dim, mixer.value_dim, new) // 4
        lengths |= {_cut(mixer, new, at)[1] for at in range(past, max(-1, past - again), -new)}
    ordered = sorted(lengths)
    counts = _last_splits(mixer, new, np.array(ordered), False)
    return ordered[int(counts.argmax())]


def _parts(mixer: Attention, new: int) -> int:
    """Parts of a segment that are attended to side by side, so that few queries fill the GPU."""
    blocks = -(-new * mixer.query_heads // mixer.kv_heads // 128) * mixer.kv_heads
    parts = 1
    while parts < 8 and 2 * parts * blocks <= MULTIPROCESSORS:
        parts *= 2
    return parts


def splits(heads: int, dim: int, new: int, keys: int, processors: int = MULTIPROCESSORS) -> int:
    """Splits of the keys that FlashAttention 2 makes for one sequence (`num_splits_heuristic` in
    torch's aten/native/transformers/cuda/flash_attn/flash_api.cpp): the fewest that keep the device
    nearly as busy as any number would."""
    return int(_splits(heads, dim, new, np.array([keys]), processors)[0])


def _splits(heads: int, dim: int, new: int, keys: Ints, processors: int) -> Ints:
    """`splits` of several numbers of keys [K]."""
    places = 2 * processors
    blocks = heads * -(-new // 64)
    if blocks >= 0.8 * places:
        return np.ones_like(keys)
    runs = -(-keys // (256 if dim <= 64 else 128 if dim <= 128 else 64))[:, None]
    counts = np.arange(1, min(MOST_SPLITS, places) + 1)
    efficiency = blocks * counts / places / -(-blocks * counts // places)
    longest = -(-runs // counts)  # runs of a split; as many as with one split less: no better
    better = np.diff(longest, axis=1, prepend=0) != 0
    efficiency = np.where(better & (counts <= runs), efficiency, 0.0)
    return counts[(efficiency >= ENOUGH * efficiency.max(axis=1, keepdims=True)).argmax(axis=1)]


def _whole_width(dim: int) -> int:
    """Channels of a head in FlashAttention's sums."""
    return -(-dim // 32) * 32 if dim <= 192 else 256
