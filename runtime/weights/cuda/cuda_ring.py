"""Host side of ring.cu: what it takes, how the work is cut, its launch.

Products of up to 64 rows with packed matrices on the tensor cores. On an H200 it is the fastest for
more than 32 rows, at 4 and at 8 bits; for fewer, sweep.cu and tile.cu are faster at
4 bits and Triton at 8 (docs/weights_runtime.md).
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import Packed, Packed4
from ..workspace import COUNTERS, Workspace
from . import cuda_row, few_rows

STRIP = 32  # columns of a warp
UNIT = 16  # rows of words that a warp takes at a time
MOST_ROWS = 64
_SOURCE = Path(__file__).with_name("ring.cu")


@dataclass(frozen=True, slots=True)
class RingCut:
    """How a product is cut: the constants of ring.cu of the same names."""

    tiles: int
    bands: int
    strips: int
    slices: int
    stages: int
    blocks: int

    @property
    def threads(self) -> int:
        return 32 * self.bands * self.strips * self.slices

    @property
    def rows(self) -> int:
        return 8 * self.tiles * self.bands

    def shared_bytes(self, bits: int, group: int) -> int:
        """What a block keeps in shared memory: its ring, and sums of slices that others add."""
        planes, parts = (4, 128 // group) if bits == 4 else (2, 0)
        x = self.slices * self.rows * (64 * planes + 64)
        stage = self.strips * self.slices * (2048 + 80 * parts) + x
        return self.stages * stage + (self.slices - 1) * self.strips * self.rows * 128


def takes(weight: Packed, x: torch.Tensor) -> bool:
    """Whether the kernel can run: few rows, NVRTC is here, and its loads are aligned."""
    return x.shape[0] <= MOST_ROWS and cuda_row.aligned(weight, x)


def faster(rows: int) -> bool:
    """Whether this beats the other kernels for that many rows, measured on an H200."""
    return 32 < rows <= MOST_ROWS


def cut_of(rows: int) -> RingCut:
    """Chosen by measurement on an H200 for more than 32 rows; for fewer others are faster."""
    tiles = next(n for n in (1, 2, 4) if 8 * n >= min(rows, 32))
    return RingCut(tiles, 2 if rows > 32 else 1, 4, 1, 3, 1)


def product(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    workspace: Workspace,
    cut: RingCut | None = None,
    *,
    gated: int = 0,
    early: bool = True,
) -> torch.Tensor:
    """y [rows, out] = x [rows, in] @ W + bias; x 16-bit contiguous.

    `cut` overrides `cut_of`; `gated` as in `linear.multiply_gated`; `early` may be switched off
    to compare.
    """
    inputs, outputs = weight.shape
    rows, device = x.shape[0], x.device.index or 0
    cut = cut or cut_of(rows)
    zeros = weight.zeros if isinstance(weight, Packed4) else None
    bits, group = (8, 128) if zeros is None else (4, weight.group_size)  # type: ignore[union-attr]
    columns = STRIP * cut.strips
    width = outputs // 2 if gated else outputs
    blocks, passes = -(-outputs // columns), -(-rows // cut.rows)
    if gated:  # a strip has half of its columns from each half
        blocks = -(-width // (columns // 2))
    units = -(-(inputs * bits // 32) // UNIT)
    steps = -(-units // cut.slices) * blocks
    grid = min(steps, cut.blocks * cuda_row.multiprocessors(device))
    partial = passes * 2 * cut.rows * columns * 4
    if blocks * passes > COUNTERS or partial * grid > workspace.scratch.numel():
        grid = blocks  # each has whole columns: nothing is shared
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    arguments = few_rows.arguments(x, weight, bias, y, workspace.sums(), workspace.counters)
    constants = {
        "BITS": bits,
        "GROUP": group,
        **few_rows.kinds(x, weight),
        "GATED": gated,
        "TILES": cut.tiles,
        "BANDS": cut.bands,
        "STRIPS": cut.strips,
        "SLICES": cut.slices,
        "STAGES": cut.stages,
        "BLOCKS": cut.blocks,
    }
    shared = cut.shared_bytes(bits, group)
    kernel = nvrtc.compile_kernel(_SOURCE, "ring", constants, device, shared)
    kernel.launch((grid, passes, 1), cut.threads, arguments, early=early)
    return y
