"""Host side of parts.cu: what it takes, how the work is cut, its launch.

Products of five to sixteen rows with 4-bit matrices of groups of 128, in whole numbers on the
tensor cores (docs/weights_runtime.md). Norms, gates and attention before such a product leave its x
in whole numbers in the workspace. Inputs that do not fit the shared memory: cuda_sweep.py.
"""

import functools
from pathlib import Path

import torch

from ....planner.latency.parts_cut import (
    ROWS,
    STRIP,
    PartsCut,
    cut_of,
    padded_rows,
    together,
    whole_bytes,
)
from ...kernels import nvrtc
from ..layout import Packed, Packed4
from ..workspace import Workspace
from . import cuda_row, few_rows

_SOURCE = Path(__file__).with_name("parts.cu")


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
    rows, device, coarse = x.shape[0], x.device.index or 0, together(weight.shape[1], gated)
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
    rows, device, coarse = x.shape[0], x.device.index or 0, together(weight.shape[1], gated)
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
