"""Host side of parts.cu: what it takes, how the work is cut, its launch.

Products of five to sixteen rows with 4-bit matrices of groups of 128, in whole numbers on the
tensor cores (docs/weights_runtime.md). Norms, gates and attention before such a product leave its x
in whole numbers in the workspace. Inputs that do not fit the shared memory: cuda_sweep.py.
"""

import functools
from dataclasses import dataclass
from itertools import product as pairs_of
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import BLOCK4, Packed, Packed4
from ..whole_rows import whole_bytes
from ..workspace import Workspace
from . import cuda_row, few_rows

STRIP = 32  # columns of a strip
PITCH = 40  # floats of a row of sums
WARPS = 16
AHEAD = 2  # tiles a warp has in flight
ROWS = (8, 16)
SPLITS = (1, 4, 2, 8)
MEETING = 2  # tiles that a warp multiplies while blocks of a group meet
SLICES = (1, 2, 4, 8, 16)
_SOURCE = Path(__file__).with_name("parts.cu")


@dataclass(frozen=True, slots=True)
class PartsCut:
    """How a product is cut: the constants of parts.cu of the same names, and groups of blocks."""

    rows: int
    splits: int
    slices: int
    warps: int
    ahead: int
    groups: int

    def strips(self, strips: int, gated: int, coarse: int) -> int:
        """Strips of the matrix that a group has at most, of `strips` of y; of these `coarse`
        belong together."""
        return -(-(strips // coarse) // self.groups) * coarse * (2 if gated else 1)

    def shared_bytes(self, inputs: int, strips: int, gated: int, coarse: int = 1) -> int:
        """What a block keeps in shared memory: x, its measures, sums of its slices."""
        units = -(-(inputs // BLOCK4) // self.splits)
        sums = self.slices * self.strips(strips, gated, coarse) * self.rows * PITCH * 4
        return whole_bytes(units * BLOCK4, self.rows) + sums

    def tiles(self, inputs: int, strips: int, gated: int, coarse: int) -> int:
        """Tiles that the busiest warp multiplies."""
        units = -(-(inputs // BLOCK4) // (self.splits * self.slices))
        return -(-self.strips(strips, gated, coarse) * self.slices // self.warps) * units


def cut_of(
    inputs: int, outputs: int, rows: int, gated: int, coarse: int, processors: int, room: int
) -> PartsCut | None:
    """The cut whose busiest warp is done first, of as few slices as possible; None where none
    fits."""
    padded = padded_rows(rows)
    strips, units = outputs // STRIP // (2 if gated else 1), inputs // BLOCK4
    found: list[tuple[int, PartsCut]] = []
    for splits, slices in pairs_of(SPLITS, SLICES):
        if splits * slices > units:
            continue
        most = -(-(strips // coarse) // min(strips // coarse, max(1, processors // splits)))
        groups = -(-(strips // coarse) // most)  # of those that all have as many, the fewest
        cut = PartsCut(padded, splits, slices, WARPS, AHEAD, groups)
        if cut.shared_bytes(inputs, strips, gated, coarse) <= room:
            meeting = MEETING if splits > 1 else 0
            found.append((cut.tiles(inputs, strips, gated, coarse) + meeting, cut))
    return min(found, key=lambda one: one[0])[1] if found else None


@functools.lru_cache(maxsize=256)
def _cut(
    inputs: int, outputs: int, rows: int, gated: int, coarse: int, device: int
) -> PartsCut | None:
    processors, room = cuda_row.multiprocessors(device), nvrtc.shared_memory(device)
    return cut_of(inputs, outputs, rows, gated, coarse, processors, room)


def in_range(rows: int) -> bool:
    """Whether this beats the other kernels for that many rows that are ready, on an H200."""
    return 4 < rows <= ROWS[-1]


def faster(x: torch.Tensor, gated: int, workspace: Workspace) -> bool:
    """Whether this beats the other kernels: where x is kept in whole numbers, or gate and up are
    one launch. To make them in every block costs more than `sweep.cu` does."""
    rows = x.shape[0]
    return in_range(rows) and (bool(gated) or workspace.holds_whole(x, padded_rows(rows)))


def padded_rows(rows: int) -> int:
    """Rows that a launch of `rows` rows holds."""
    return next(n for n in ROWS if n >= rows)


def keep_for(
    weight: Packed, workspace: Workspace, y: torch.Tensor
) -> tuple[torch.Tensor, int] | None:
    """Room for y [n, width] in whole numbers, and for how many rows, where the product of y with
    `weight` will look for them."""
    if not in_range(y.shape[0]) or y.shape[1] != weight.shape[0] or not takes(weight, y, workspace):
        return None
    padded = padded_rows(y.shape[0])
    room = workspace.keep_whole(y, padded)
    return None if room is None else (room, padded)


def takes(weight: Packed, x: torch.Tensor, workspace: Workspace, *, gated: int = 0) -> bool:
    """Whether the kernel can run: 4 bits in groups of 128, rows, alignment, room."""
    rows, device, coarse = x.shape[0], x.device.index or 0, _coarse(weight, gated)
    if rows > ROWS[-1] or not (cuda_row.aligned(weight, x) and few_rows.in_chunks(weight, gated)):
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    inputs, outputs = weight.shape
    cut = _cut(inputs, outputs, rows, gated, coarse, device)
    if cut is None or inputs // 8 * weight.words.stride(-2) >= 2**32:  # indices of 32 bits
        return False
    if cut.splits > 1 and cut.groups * cut.warps > workspace.counters.numel():
        return False
    sums = 4 * cut.splits * rows * outputs if cut.splits > 1 else 0
    kept = whole_bytes(inputs, cut.rows) + whole_bytes(outputs, cut.rows) + 64
    return sums + kept <= workspace.scratch.numel()


def _coarse(weight: Packed, gated: int) -> int:
    """Strips of y that belong together: what is gated is made whole, in units of 128."""
    together = BLOCK4 // STRIP
    return together if gated and weight.shape[1] // 2 % BLOCK4 == 0 else 1


def product(
    x: torch.Tensor,
    weight: Packed4,
    bias: torch.Tensor | None,
    workspace: Workspace,
    cut: PartsCut | None = None,
    *,
    gated: int = 0,
    early: bool = True,
) -> torch.Tensor:
    """y [rows, out] = x [rows, in] @ W + bias; x 16-bit contiguous.

    Whole numbers of x are taken from the workspace where they are there; those of y, where it is
    gated, are left there for the product that follows. `cut` overrides `cut_of`; `gated` as in
    `linear.multiply_gated`; `early` may be switched off to compare.
    """
    inputs, outputs = weight.shape
    rows, device, coarse = x.shape[0], x.device.index or 0, _coarse(weight, gated)
    cut = cut or _cut(inputs, outputs, rows, gated, coarse, device)
    assert cut is not None  # `takes` holds
    width = outputs // 2 if gated else outputs
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    ready = workspace.whole_of(x, cut.rows)
    read = workspace.end_of(ready)
    makes = workspace.keep_whole(y, cut.rows, read) if coarse > 1 else None
    constants = few_rows.kinds(x, weight) | {
        "ROWS": cut.rows, "GATED": gated, "SPLITS": cut.splits, "SLICES": cut.slices,
        "WARPS": cut.warps, "AHEAD": cut.ahead, "COARSE": coarse,
        "READY": int(ready is not None), "MAKES": int(makes is not None),
        "ONE": int(cut.strips(width // STRIP, gated, coarse) <= cut.warps // cut.slices),
        "WORDS_ROW": weight.words.stride(-2), "SCALES_ROW": weight.scales.stride(-2),
        "ZEROS_ROW": weight.zeros.stride(-2),
    }  # fmt: skip
    shared = cut.shared_bytes(inputs, width // STRIP, gated, coarse)
    kernel = nvrtc.compile_kernel(_SOURCE, "parts", constants, device, shared)
    sums = workspace.scratch[-(-max(read, workspace.end_of(makes)) // 16) * 16 :]
    arguments = few_rows.arguments(x, weight, bias, y, sums, workspace.counters)
    if makes is not None:
        arguments.made = makes.data_ptr()
    if ready is not None:
        arguments.x = ready.data_ptr()
    kernel.launch((cut.groups, cut.splits, 1), 32 * cut.warps, arguments, early=early)
    return y
