"""Host side of stage.cu: a run of positions written out in 16 bits, and partial results merged.

Launched once or twice a segment of every layer and chunk, so a launch has to be cheap on the
host: one structure of arguments, no tuning, no type checks.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from ..cache.layer_state import LayerState, SideState
from . import nvrtc
from .formats import address, format_constants, levels_of, ring_rows

_SOURCE = Path(__file__).with_name("stage.cu")
_THREADS = 256
_TURNS = 4  # pieces of 8 channels a thread stages


class StageSide(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("values", "pairs", "residual", "sinks", "out")),
        *((name, ctypes.c_int) for name in ("capacity", "residual_rows", "sink_rows")),
        *((name, ctypes.c_int) for name in ("buffered", "block")),
        ("levels", ctypes.c_void_p),
    ]


class _StageArgs(ctypes.Structure):
    _fields_ = [
        *((name, StageSide) for name in ("k", "v")),
        ("clock", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("heads", "batch_heads", "first", "part_rows")),
    ]


class _MergeArgs(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("sums", "before", "after", "part", "lse")),
        *((name, ctypes.c_void_p) for name in ("out", "logits")),
        *((name, ctypes.c_longlong) for name in ("part_stride", "head_stride", "query_stride")),
        *((name, ctypes.c_int) for name in ("heads", "queries", "parts", "is_first", "is_last")),
    ]


class Stager:
    """stage.cu for one layer of a cache and the dtype of its model."""

    def __init__(self, state: LayerState, dtype: torch.dtype) -> None:
        constants = format_constants(state.key, state.value, dtype)
        device = state.key.values.device.index or 0
        self._stage = nvrtc.compile_kernel(_SOURCE, "stage", constants, device, 0)
        self._merge = nvrtc.compile_kernel(_SOURCE, "merge", constants, device, 0)
        # the cache's buffers stay where they are: only the positions change from call to call
        self._args = _StageArgs(
            stage_side(state.key), stage_side(state.value), address(state.clock.device),
            state.key.values.shape[1],
        )  # fmt: skip

    def stage(self, first: int, keys: Tensor, values: Tensor) -> None:
        """Write positions from `first` on to `keys` and `values` [parts, B * H, rows, D].

        Contiguous; each part holds the next `rows` positions.
        """
        args = self._args
        parts, args.batch_heads, args.part_rows, dim = keys.shape
        args.first = first
        args.k.out, args.v.out = keys.data_ptr(), values.data_ptr()
        blocks = -(-args.part_rows * (dim // 8) // (_THREADS * _TURNS))
        self._stage.launch((blocks, args.batch_heads, 2 * parts), _THREADS, args)

    def merge(
        self,
        sums: tuple[Tensor, Tensor, Tensor],
        part: Tensor,
        strides: tuple[int, int, int],
        lse: Tensor,
        out: Tensor,
        logits: Tensor | None,
        *,
        parts: int,
        first: bool,
        last: bool,
    ) -> None:
        """Merge `part`, of strides (part, head, query), and `lse` [parts, H, n] into `sums`.

        `sums` are the mix [H, n, D], its log-sum-exp so far [H, n], and a place for the next.
        The last goes to `out` [1, H, n, D] instead, with one sink logit a head, or none.
        """
        _, heads, queries, dim = out.shape
        mix, before, after = sums
        args = _MergeArgs(
            *map(address, (mix, before, after, part, lse, out, logits)), *strides,
            heads, queries, parts, first, last,
        )  # fmt: skip
        self._merge.launch((-(-heads * queries * (dim // 8) // _THREADS), 1, 1), _THREADS, args)


def stage_side(side: SideState) -> StageSide:
    buffers = (side.values, side.scale, side.residual, side.sinks, None)
    return StageSide(
        *map(address, buffers), side.values.shape[2], ring_rows(side.residual), side.sink_tokens,
        side.form.buffered, side.form.block, address(levels_of(side)),
    )  # fmt: skip
