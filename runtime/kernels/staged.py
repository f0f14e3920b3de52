"""Chunk attention by staging: past tokens in bounded segments through a library's attention.

A segment of the packed cache is written out in 16 bits to one reused buffer, attended to by the
fastest fused attention torch has, and merged into float32 sums by its log-sum-exp; the chunk's
own tokens go last, causal. Writing a segment out costs a few percent of attending to it with a
chunk of 1024 queries, and the library's kernel runs at several times the rate of one that
dequantizes tile by tile (docs/kernels.md). There is never a full 16-bit copy.

On Hopper, chunks over a cache of 4 bits or fewer go another way: staged in 8 bits, whole heads at
a time in the same buffers, and attended to by one kernel of our own (eight_bits/chunk8.py).

A small chunk is short work for the device, so what the host does for a segment is kept small:
buffers, their views and the kernels' arguments are made once (staging_buffers.py).
"""

import torch
from torch import Tensor

from ...planner.memory.activation.workspace import MULTIPROCESSORS, SEGMENT, goes_square
from ..cache.layer_state import LayerState
from . import nvrtc
from .eight_bits import chunk8
from .staging_buffers import StagingBuffers, staging_buffers_of

_library_attention = torch.ops.aten._scaled_dot_product_cudnn_attention.default
_causal_attention = torch.ops.aten._flash_attention_forward.default


def supports(state: LayerState, tokens: int) -> bool:
    """Equal head sizes that fused attention takes; a window that fits a segment."""
    dim = state.key.dim
    return (
        state.key.values.is_cuda
        and nvrtc.available()
        and dim == state.value.dim
        and dim % 8 == 0
        and dim <= 256
        and (state.window or 0) <= SEGMENT // 2
        and tokens > 1
    )


def attend(
    query: Tensor, state: LayerState, *, scaling: float, sinks: Tensor | None = None
) -> Tensor:
    """Causal attention of the last n tokens, [B, Hq, n, D] -> [B, Hq, n, D]; host lengths.

    A batch goes a sequence at a time through the same buffers; the output of padding is zero.
    """
    query, total, n = query.contiguous(), state.clock.host, query.shape[2]
    in_8_bits = sinks is None and _goes_in_8_bits(query, state)
    if in_8_bits:  # rows lie as the output projection reads them
        out = query.new_empty(query.shape[0], n, *query.shape[1::2]).transpose(1, 2)
        if set(state.clock.begins) == {min(total - n, state.clock.begins[0])}:
            _in_8_bits(query, state, state.clock.begins[0], scaling, out)
            return out
    else:
        out = torch.empty_like(query)
    logits = None if sinks is None else sinks.float()
    for row, begin in enumerate(state.clock.begins):
        asked, mixed = query[row : row + 1], out[row : row + 1]
        padding = min(n, max(0, begin - (total - n)))
        one = state if len(state.clock.begins) == 1 else state.rows[row]
        if not padding:
            _sequence(asked, one, begin, scaling, logits, mixed, in_8_bits)
            continue
        mixed.zero_()
        if padding < n:
            asked = asked[:, :, padding:].contiguous()
            found = torch.empty_like(asked)
            _sequence(asked, one, begin, scaling, logits, found, in_8_bits)
            mixed[:, :, padding:] = found
    return out


def _goes_in_8_bits(query: Tensor, state: LayerState) -> bool:
    """Whether the chunk is attended to in 8 bits, not in 16."""
    if not chunk8.supports(state, query.dtype):
        return False
    first = state if len(state.clock.begins) == 1 else state.rows[0]
    room = staging_buffers_of(first, query[:1])
    tokens = state.clock.host - min(state.clock.begins)
    return chunk8.faster(query, tokens, state.key.values.shape[1], room.spare)


def _in_8_bits(query: Tensor, state: LayerState, begin: int, scaling: float, out: Tensor) -> None:
    """All sequences of a state, which begin at one position, in 8 bits."""
    room = staging_buffers_of(state, query)
    assert room.eight is not None
    total = state.clock.host
    room.eight.attend(query, begin, total, scaling, room.spare, out, room.spill)


def _sequence(
    query: Tensor,
    state: LayerState,
    begin: int,
    scaling: float,
    logits: Tensor | None,
    out: Tensor,
    in_8_bits: bool,
) -> None:
    """One sequence, which begins at position `begin`: its last n tokens, [1, Hq, n, D]."""
    if in_8_bits:
        _in_8_bits(query, state, begin, scaling, out)
        return
    total, n = state.clock.host, query.shape[2]
    if state.window is None:
        room = staging_buffers_of(state, query)
        _attend(query, room, total, _segments(begin, total, n, room.segment), scaling, logits, out)
        return
    step = SEGMENT - state.window + 1  # queries whose windows fit a segment
    for at in range(0, n, step):
        piece = query[:, :, at : at + step].contiguous()
        end = total - n + at + piece.shape[2]
        first = max(begin, total - n + at - state.window + 1)
        mixed = out if piece.shape[2] == n else torch.empty_like(piece)
        room = staging_buffers_of(state, piece)
        _attend(piece, room, end, [(first, end)], scaling, logits, mixed, state.window)
        if mixed is not out:
            out[:, :, at : at + step] = mixed


def _segments(begin: int, total: int, n: int, segment: int) -> list[tuple[int, int]]:
    """Positions [first, end) to stage in turn: bounded pieces of the past, then the chunk itself.

    The past goes in whole segments and one piece of 1, 2 or 3 quarters, because the library
    compiles a plan for every length it has not seen; what is left goes with the chunk, where it
    fits the buffer.
    """
    past, quarter = total - n, segment // 4
    whole = begin + (past - begin) // segment * segment
    pieces = [(at, at + segment) for at in range(begin, whole, segment)]
    end = begin + (past - begin) // quarter * quarter
    if whole < end:
        pieces.append((whole, end))
    if total - end > max(n, segment):
        pieces.append((end, past))
        end = past
    return [*pieces, (end, total)]


def _attend(
    query: Tensor,
    room: StagingBuffers,
    total: int,
    segments: list[tuple[int, int]],
    scaling: float,
    logits: Tensor | None,
    out: Tensor,
    window: int | None = None,
) -> None:
    """Attention of queries that end at `total` to `segments`, the last of which ends there too."""
    _, query_heads, n, dim = query.shape
    heads, tops = room.heads, room.tops
    folded: dict[int, Tensor] = {}
    for index, (first, end) in enumerate(segments):
        count, last = end - first, index == len(segments) - 1
        parts = 1 if last else _parts(heads, n * query_heads // heads, count)
        k, v = room.stage(first, count, parts)
        if last:
            part, lse = _causal(query, k, v, scaling, window)
            strides = 0, part.stride(1), part.stride(2)
        else:
            if parts not in folded:
                folded[parts] = _folded(query, heads, parts)
            part, lse = _past(folded[parts], k, v, scaling)
            strides = query_heads * n * dim, n * dim, dim
        sums = room.mix, tops[index % 2], tops[1 - index % 2]
        room.stager.merge(
            sums, part, strides, lse, out, logits, parts=parts, first=index == 0, last=last
        )


def _parts(heads: int, rows: int, count: int) -> int:
    """Parts of a segment attended to side by side, so that few queries still fill the device."""
    parts = 1
    while parts < 8 and 2 * parts * heads * -(-rows // 128) <= MULTIPROCESSORS:
        parts *= 2
    while count % parts:
        parts //= 2
    return parts


def _folded(query: Tensor, heads: int, parts: int) -> Tensor:
    """Queries [1, Hq, n, D] as [parts, H, rows, D]: where all of them see all keys, the query
    heads of a KV head are just more queries."""
    return query.view(1, heads, -1, query.shape[3]).expand(parts, -1, -1, -1).contiguous()


def _past(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Attention to tokens that every query sees: ([parts, H, rows, D], lse [parts, H, rows])."""
    out, lse = _library(query, key, value, scaling, causal=False)
    return out.contiguous(), lse.contiguous()


def _library(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """cuDNN's attention: (result, log-sum-exp)."""
    flags = None, True, 0.0, causal, False
    out, lse, *_ = _library_attention(query, key, value, *flags, scale=scaling)
    return out, lse


def _causal(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
) -> tuple[Tensor, Tensor]:
    """Attention aligned at the right edge: ([1, Hq, n, D], log-sum-exp [1, Hq, n]).

    A whole chunk that meets itself alone goes through cuDNN, which is twice as fast there and
    knows no other alignment; it compiles a plan for every length, so odd ones do not.
    """
    n, keys = query.shape[2], key.shape[2]
    if window is None and goes_square(n, keys):
        out, lse = _library(query, key, value, scaling, causal=True)
        return out, lse.contiguous()
    out, lse, *_ = _causal_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), None, None,
        n, keys, 0.0, True, False, scale=scaling,
        window_size_left=None if window is None else window - 1,
        window_size_right=None if window is None else 0,
    )  # fmt: skip
    return out.transpose(1, 2), lse.contiguous()
