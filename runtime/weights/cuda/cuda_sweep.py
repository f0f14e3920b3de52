"""Host side of sweep.cu: what it takes, how the work is cut, its launch.

Products of three to sixteen rows with 4-bit matrices of groups of 128: a block keeps its part
of x in shared memory and sweeps over columns (docs/weights_runtime.md). Other groups and more rows:
cuda_tile.py.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import BLOCK4, Packed, Packed4
from ..workspace import COUNTERS, Workspace
from . import cuda_row, few_rows

STRIP = 32  # columns of a warp
MOST_ROWS = 16
MOST_ITEMS = 128  # of a block
_SOURCE = Path(__file__).with_name("sweep.cu")


@dataclass(frozen=True, slots=True)
class SweepCut:
    """How a product is cut: the constants of sweep.cu of the same names."""

    tiles: int
    slices: int
    units: int
    strips: int
    ahead: int
    buffers: int

    @property
    def threads(self) -> int:
        return 32 * self.slices * self.strips

    @property
    def shared_bytes(self) -> int:
        """What a block keeps in shared memory: x, and results of its warps."""
        results = self.buffers * self.slices * self.strips * 8 * self.tiles * 36 * 4
        return 2048 * self.tiles * self.slices * self.units + results

    def groups(self, outputs: int) -> int:
        """Groups of strips that the columns take."""
        return -(-outputs // (self.strips * STRIP))

    def splits(self, inputs: int) -> int:
        return -(-(inputs // BLOCK4) // (self.slices * self.units))


def cut_of(rows: int) -> SweepCut:
    """Chosen by measurement on an H200: as few items as shared memory allows."""
    return SweepCut(1 if rows <= 8 else 2, 16, 2, 1, 2, 2)


def takes(weight: Packed, x: torch.Tensor, workspace: Workspace) -> bool:
    """Whether the kernel can run: 4 bits in groups of 128, rows, alignment, room for its sums."""
    if not isinstance(weight, Packed4) or weight.group_size != BLOCK4:
        return False
    rows, device = x.shape[0], x.device.index or 0
    if not (2 < rows <= MOST_ROWS and cuda_row.aligned(weight, x)):
        return False
    cut, (inputs, outputs) = cut_of(rows), weight.shape
    groups, splits = cut.groups(outputs), cut.splits(inputs)
    items = -(-groups * splits // cuda_row.multiprocessors(device))
    partial = 4 * splits * rows * groups * cut.strips * STRIP if splits > 1 else 0
    return (
        groups <= COUNTERS
        and items <= MOST_ITEMS
        and partial <= workspace.scratch.numel()
        and cut.shared_bytes <= nvrtc.shared_memory(device) - 1024
    )


def product(
    x: torch.Tensor,
    weight: Packed4,
    bias: torch.Tensor | None,
    workspace: Workspace,
    cut: SweepCut | None = None,
    *,
    early: bool = True,
) -> torch.Tensor:
    """y [rows, out] = x [rows, in] @ W + bias; x 16-bit contiguous.

    `cut` overrides `cut_of`; `early` may be switched off to compare.
    """
    inputs, outputs = weight.shape
    rows, device = x.shape[0], x.device.index or 0
    cut = cut or cut_of(rows)
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    arguments = few_rows.arguments(x, weight, bias, y, workspace.sums(), workspace.counters)
    constants = {
        **few_rows.kinds(x, weight),
        "TILES": cut.tiles,
        "SLICES": cut.slices,
        "UNITS": cut.units,
        "STRIPS": cut.strips,
        "AHEAD": cut.ahead,
        "BUFFERS": cut.buffers,
    }
    items = cut.groups(outputs) * cut.splits(inputs)
    blocks = min(items, cuda_row.multiprocessors(device))
    kernel = nvrtc.compile_kernel(_SOURCE, "sweep", constants, device, cut.shared_bytes)
    kernel.launch((blocks, 1, 1), cut.threads, arguments, early=early)
    return y
