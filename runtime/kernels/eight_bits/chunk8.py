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
    eight_head_bytes,
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
CACHED = 2**25  # bytes of staged heads that stay in the second-level cache while units read them


class _StageArgs(ctypes.Structure):
    _fields_ = [
        *((name, StageSide) for name in ("k", "v")),
        *((name, ctypes.c_void_p) for name in ("mean", "keys", "values")),
        *((name, ctypes.c_void_p) for name in ("key_scales", "value_scales")),
        *((name, ctypes.c_int) for name in ("heads", "head", "first", "count", "tiles")),
        ("arrived", ctypes.c_void_p),
        ("counters", ctypes.c_int),
    ]


class _ChunkArgs(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "values", "key_scales", "value_scales")),
        *((name, ctypes.c_void_p) for name in ("query", "out")),
        *((name, ctypes.c_longlong) for name in ("query_sequence", "query_head", "query_row")),
        *((name, ctypes.c_longlong) for name in ("out_sequence", "out_head", "out_row")),
        *((name, ctypes.c_int) for name in ("tiles", "queries", "past", "group")),
        ("scaling", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("one", "heads", "first", "of_sequence")),
        *((name, ctypes.c_int) for name in ("together", "whole", "parts")),
        *((name, ctypes.c_void_p) for name in ("spill", "arrived")),
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


def faster(query: Tensor, tokens: int, kv_heads: int, room: Tensor) -> bool:
    """Whether one sequence's queries over `tokens` tokens are faster so than in 16 bits, and `room`
    holds a head."""
    heads = eight_heads(room.nbytes, query.shape[2], tokens, query.shape[1], kv_heads)
    return bool(heads)


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
        staged = formats | {"TILE": TILE}
        self._mean = _kernel("stage8", "mean8", staged, device, 0)
        self._stage = _kernel("stage8", "stage8", staged, device, 0)
        self._attend = _kernel(
            "chunk8", "chunk8", constants(self._dim, formats["HALF"]), device,
            shared_bytes(self._dim),
        )  # fmt: skip
        self._args = _StageArgs(
            stage_side(state.key), stage_side(state.value)
        )  # fmt: skip
        self._args.heads = self._heads
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count

    def stage(
        self, first: int, count: int, heads: range, room: Tensor, arrived: Tensor | None = None
    ) -> StagedTiles:
        """Write positions [first, first + count) of `heads`, counted over all sequences, out, and
        zeros to `arrived`."""
        tiles, args = StagedTiles.within(room, len(heads), count, self._dim), self._args
        args.mean, args.keys, args.values = map(address, (tiles.mean, tiles.keys, tiles.values))
        args.key_scales, args.value_scales = map(address, (tiles.key_scales, tiles.value_scales))
        args.head, args.first, args.count, args.tiles = heads[0], first, count, tiles.keys.shape[1]
        args.arrived, args.counters = (
            address(arrived),
            0 if arrived is None else arrived.nbytes // 4,
        )
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
        spill: Tensor | None = None,
    ) -> None:
        """Attention of each sequence's last n tokens to positions [begin, total): [B, Hq, n, D] to
        `out`.

        Rows of D are contiguous in both. `room`, bytes, holds one KV head at least; `spill`, bytes,
        what parts of cut units hand over.
        """
        batch, query_heads, n, _ = query.shape
        count, group = total - begin, query_heads // self._heads
        heads = batch * self._heads
        most = min(heads, room.nbytes // int(eight_head_bytes(count, self._dim)))
        at_once = -(-heads // -(-heads // most))
        together = max(1, min(at_once, CACHED // int(eight_head_bytes(count, self._dim))))
        part = part_bytes(self._dim)
        for head in range(0, heads, at_once):
            taken = range(head, min(head + at_once, heads))
            asked = len(taken) * group
            held = 0 if spill is None else spill.nbytes // (part + 4 * WARPGROUPS)
            cut = cut_plan(asked, n, count, self._processors, held)
            arrived = None
            if spill is not None and cut.units:
                arrived = spill[cut.units * cut.parts * part :][: 4 * WARPGROUPS * cut.units]
            tiles = self.stage(begin, count, taken, room, arrived)
            args = _ChunkArgs(
                *map(address, (tiles.keys, tiles.values, tiles.key_scales, tiles.value_scales)),
                address(query), address(out), *query.stride()[:3], *out.stride()[:3],
                tiles.keys.shape[1], n, count - n, group, scaling * math.log2(math.e), 1,
                asked, head * group, query_heads, group * together, cut.whole, cut.parts,
                address(spill), address(arrived),
            )  # fmt: skip
            blocks = cut.whole + cut.units * cut.parts
            self._attend.launch((blocks, 1, 1), 128 * (WARPGROUPS + 1), args)


@dataclass(frozen=True, slots=True)
class CutPlan:
    """Units of EIGHT_ROWS queries of a head that one thread block takes; `units` more of them, each
    cut into `parts` of its keys."""

    whole: int
    units: int = 0
    parts: int = 1


@functools.lru_cache(maxsize=4096)
def cut_plan(heads: int, queries: int, keys: int, processors: int, most: int) -> CutPlan:
    """How units of `heads` query heads fill the last round over the device's processors; `most`
    parts have room.

    Units take about as long as each other where the past is longer than the chunk. Where it is not,
    the short ones go last and fill gaps as they are.
    """
    units = heads * -(-queries // EIGHT_ROWS)
    rest = units % processors
    if units < processors or not rest or keys < 2 * queries:
        return CutPlan(units)
    fitting = [parts for parts in range(1, 9) if parts == 1 or rest * parts <= most]
    parts = min(fitting, key=lambda parts: -(-rest * parts // processors) / parts)
    return CutPlan(units) if parts == 1 else CutPlan(units - rest, rest, parts)


def part_bytes(dim: int) -> int:
    """What a part of a cut unit hands over: float32 sums, tops and norms of its threads."""
    return 128 * WARPGROUPS * (dim // 2 + 4) * 4


def constants(dim: int, half: int) -> dict[str, int]:
    """chunk8.cu's."""
    return {"D": dim, "TILE": TILE, "STAGES": STAGES, "WGS": WARPGROUPS, "HALF": half}


def shared_bytes(dim: int) -> int:
    """Shared memory of a block: tiles, queries, scales, barriers, and room to align them."""
    return STAGES * (TILE * (2 * dim + ONES) + 2 * 16 + 4 * 8) + WARPGROUPS * 64 * dim + 1024


def _kernel(
    source: str, name: str, defined: dict[str, int], device: int, shared: int
) -> nvrtc.Kernel:
    path = Path(__file__).with_name(f"{source}.cu")
    return nvrtc.compile_kernel(path, name, defined, device, shared, own=True)
