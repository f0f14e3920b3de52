"""Host side of stage8.cu and chunk8.cu: a chunk's attention in 8 bits, on Hopper.

Keys and values of a cache of 4 bits or fewer are written out in 8 bits, for as many KV heads at a
time as the room holds, and attended to by one kernel: past and chunk, causal, nothing to merge.
Keys are int8 less a sampled mean of the head, queries int8 by row, weights and values e4m3
(docs/kernels.md; reference.py is the same in plain torch).
"""

import ctypes
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ....planner.memory.activation.workspace import (
    EIGHT_BITS,
    EIGHT_DIM,
    EIGHT_ONES,
    EIGHT_ROWS,
    EIGHT_TILE,
    eight_heads,
)
from ...cache.layer_state import LayerState
from .. import nvrtc
from ..cuda_stage import StageSide, stage_side
from ..formats import address, format_constants

TILE, ONES = EIGHT_TILE, EIGHT_ONES
STAGES = 4  # tiles of keys, and of values, in shared memory
WARPGROUPS = EIGHT_ROWS // 64
_STAGE_THREADS = 256


class _StageArgs(ctypes.Structure):
    _fields_ = [
        *((name, StageSide) for name in ("k", "v")),
        *((name, ctypes.c_void_p) for name in ("mean", "keys", "values")),
        *((name, ctypes.c_void_p) for name in ("key_scales", "value_scales")),
        *((name, ctypes.c_int) for name in ("heads", "head", "first", "count", "tiles")),
    ]


class _ChunkArgs(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "values", "key_scales", "value_scales")),
        *((name, ctypes.c_void_p) for name in ("query", "out")),
        *((name, ctypes.c_longlong) for name in ("query_head", "query_row", "out_head", "out_row")),
        *((name, ctypes.c_int) for name in ("tiles", "queries", "past", "group")),
        ("scaling", ctypes.c_float),
        ("one", ctypes.c_int),
    ]


def supports(state: LayerState, dtype: torch.dtype) -> bool:
    """A Hopper GPU; a full layer in bfloat16, all of it packed in 4 bits or fewer."""
    sides = state.key, state.value
    return (
        dtype == torch.bfloat16
        and state.key.dim == state.value.dim == EIGHT_DIM
        and state.window is None
        and all(side.form.quantized and side.form.bits <= EIGHT_BITS for side in sides)
        and all(side.residual is None and side.sinks is None for side in sides)
        and torch.cuda.get_device_capability(state.key.values.device) == (9, 0)
    )


def heads_at_once(query: Tensor, tokens: int, kv_heads: int, room: Tensor) -> int:
    """KV heads of `tokens` tokens that one launch takes; 0 where 16 bits are faster, or `room`
    holds none."""
    return int(eight_heads(room.nbytes, query.shape[2], tokens, query.shape[1], kv_heads))


@dataclass(frozen=True, slots=True)
class StagedTiles:
    """What heads' tokens are staged as: bytes [heads, tiles, TILE * D] of keys and [heads, tiles,
    TILE * (D + ONES)] of values; float32 scales [heads, tiles, 4] of both, the first of four, and
    means [heads, D] of the keys."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor
    value_scales: Tensor
    mean: Tensor

    @classmethod
    def within(cls, room: Tensor, heads: int, tokens: int, dim: int) -> "StagedTiles":
        """Views of `room`, bytes."""
        tiles = -(-tokens // TILE)
        rows = heads * tiles * TILE
        sizes = [rows * dim, rows * (dim + ONES), *[heads * tiles * 16] * 2, heads * dim * 4]
        keys, values, of_keys, of_values, mean = room[: sum(sizes)].split(sizes)
        return cls(
            keys.view(heads, tiles, -1), values.view(heads, tiles, -1),
            of_keys.view(torch.float32).view(heads, tiles, 4),
            of_values.view(torch.float32).view(heads, tiles, 4),
            mean.view(torch.float32).view(heads, dim),
        )  # fmt: skip


class Chunk8:
    """The kernels for one layer of a cache and the dtype of its model."""

    def __init__(self, state: LayerState, dtype: torch.dtype) -> None:
        formats = format_constants(state.key, state.value, dtype)
        device = state.key.values.device.index or 0
        self._heads, self._dim = state.key.values.shape[1], state.key.dim
        staged = tuple((formats | {"TILE": TILE}).items())
        self._mean = _kernel("stage8", "mean8", staged, device, 0)
        self._stage = _kernel("stage8", "stage8", staged, device, 0)
        self._attend = _kernel(
            "chunk8", "chunk8", tuple(constants(self._dim, formats["HALF"]).items()), device,
            shared_bytes(self._dim),
        )  # fmt: skip
        self._args = _StageArgs(
            stage_side(state.key), stage_side(state.value)
        )  # fmt: skip
        self._args.heads = self._heads

    def stage(self, first: int, count: int, heads: range, room: Tensor) -> StagedTiles:
        """Write positions [first, first + count) of `heads` out."""
        tiles, args = StagedTiles.within(room, len(heads), count, self._dim), self._args
        args.mean, args.keys, args.values = map(address, (tiles.mean, tiles.keys, tiles.values))
        args.key_scales, args.value_scales = map(address, (tiles.key_scales, tiles.value_scales))
        args.head, args.first, args.count, args.tiles = heads[0], first, count, tiles.keys.shape[1]
        self._mean.launch((len(heads), 1, 1), _STAGE_THREADS, args)
        self._stage.launch((args.tiles, len(heads), 2), _STAGE_THREADS, args)
        return tiles

    def attend(
        self,
        query: Tensor,
        begin: int,
        total: int,
        scaling: float,
        room: Tensor,
        out: Tensor,
        at_once: int,
    ) -> None:
        """Attention of the last n tokens to positions [begin, total): [1, Hq, n, D] to `out`.

        Rows of D are contiguous in both. `room`, bytes, holds `at_once` KV heads, a launch's.
        """
        _, query_heads, n, _ = query.shape
        count, group = total - begin, query_heads // self._heads
        for head in range(0, self._heads, at_once):
            heads = range(head, min(head + at_once, self._heads))
            tiles = self.stage(begin, count, heads, room)
            asked, mixed = query[0, head * group], out[0, head * group]
            args = _ChunkArgs(
                *map(address, (tiles.keys, tiles.values, tiles.key_scales, tiles.value_scales)),
                address(asked), address(mixed),
                query.stride(1), query.stride(2), out.stride(1), out.stride(2),
                tiles.keys.shape[1], n, count - n, group, scaling * math.log2(math.e), 1,
            )  # fmt: skip
            blocks = -(-n // (64 * WARPGROUPS)), len(heads) * group, 1
            self._attend.launch(blocks, 128 * (WARPGROUPS + 1), args)


def constants(dim: int, half: int) -> dict[str, int]:
    """chunk8.cu's."""
    return {"D": dim, "TILE": TILE, "STAGES": STAGES, "WGS": WARPGROUPS, "HALF": half}


def shared_bytes(dim: int) -> int:
    """Shared memory of a block: tiles, queries, scales, barriers, and room to align them."""
    return STAGES * (TILE * (2 * dim + ONES) + 2 * 16 + 4 * 8) + WARPGROUPS * 64 * dim + 1024


@functools.lru_cache(maxsize=256)
def _kernel(
    source: str, name: str, defined: tuple[tuple[str, int], ...], device: int, shared: int
) -> nvrtc.Kernel:
    path = Path(__file__).with_name(f"{source}.cu")
    return nvrtc.compile_kernel(path, name, dict(defined), device, shared, own=True)
