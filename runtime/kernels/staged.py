"""Chunk attention by staging: past tokens in bounded segments through a library's attention.

A segment of the packed cache is written out in 16 bits to one reused buffer, attended to by the
fastest fused attention torch has, and merged into float32 sums by its log-sum-exp; the chunk's
own tokens go last, causal. Writing a segment out costs a few percent of attending to it with a
chunk of 1024 queries, and the library's kernel runs at several times the rate of one that
dequantizes tile by tile (docs/kernels.md). There is never a full 16-bit copy.

A small chunk is short work for the device, so what the host does for a segment is kept small:
buffers, their views and the kernels' arguments are made once (staging_buffers.py).
"""

import torch
from torch import Tensor

from ...planner.memory.activation.workspace import MULTIPROCESSORS, SEGMENT
from ..cache.layer_state import LayerState
from . import nvrtc
from .staging_buffers import StagingBuffers, staging_buffers_of

_past_attention = torch.ops.aten._scaled_dot_product_cudnn_attention.default
_causal_attention = torch.ops.aten._flash_attention_forward.default


def supports(state: LayerState, tokens: int) -> bool:
    """One sequence; equal head sizes that fused attention takes; a window that fits a segment."""
    dim = state.key.dim
    return (
        state.key.values.is_cuda
        and nvrtc.available()
        and state.key.values.shape[0] == 1
        and dim == state.value.dim
        and dim % 8 == 0
        and dim <= 256
        and (state.window or 0) <= SEGMENT // 2
        and tokens > 1
    )


def attend(
    query: Tensor, state: LayerState, *, scaling: float, sinks: Tensor | None = None
) -> Tensor:
    """Causal attention of the last n tokens, [1, Hq, n, D] -> [1, Hq, n, D]; host lengths."""
    query, total, n = query.contiguous(), state.clock.host, query.shape[2]
    out = torch.empty_like(query)
    logits = None if sinks is None else sinks.float()
    if state.window is None:
        room = staging_buffers_of(state, query)
        _attend(query, room, total, _segments(total, n, room.segment), scaling, logits, out)
        return out
    step = SEGMENT - state.window + 1  # queries whose windows fit a segment
    for at in range(0, n, step):
        piece = query[:, :, at : at + step].contiguous()
        end = total - n + at + piece.shape[2]
        first = max(0, total - n + at - state.window + 1)
        mixed = out if piece.shape[2] == n else torch.empty_like(piece)
        room = staging_buffers_of(state, piece)
        _attend(piece, room, end, [(first, end)], scaling, logits, mixed, state.window)
        if mixed is not out:
            out[:, :, at : at + step] = mixed
    return out


def _segments(total: int, n: int, segment: int) -> list[tuple[int, int]]:
    """Positions [first, end) to stage in turn: bounded pieces of the past, then the chunk itself.

    The past goes in whole segments and one piece of 1, 2 or 3 quarters, because the library
    compiles a plan for every length it has not seen; what is left goes with the chunk, where it
    fits the buffer.
    """
    past, quarter = total - n, segment // 4
    segments = [(at, at + segment) for at in range(0, past - segment + 1, segment)]
    at = past // segment * segment
    end = past // quarter * quarter
    if at < end:
        segments.append((at, end))
    if total - end > max(n, segment):
        segments.append((end, past))
        end = past
    return [*segments, (end, total)]


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
    out, lse, *_ = _past_attention(query, key, value, None, True, 0.0, False, False, scale=scaling)
    return out.contiguous(), lse.contiguous()


def _causal(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
) -> tuple[Tensor, Tensor]:
    """Attention aligned at the right edge: ([1, Hq, n, D], log-sum-exp [1, Hq, n])."""
    out, lse, *_ = _causal_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), None, None,
        query.shape[2], key.shape[2], 0.0, True, False, scale=scaling,
        window_size_left=None if window is None else window - 1,
        window_size_right=None if window is None else 0,
    )  # fmt: skip
    return out.transpose(1, 2), lse.contiguous()
