"""Host side of tile.cu: what it takes, how the work is cut, its launch.

Products with 4-bit matrices on the tensor cores: of 17 to 32 rows, and of 3 to 32 rows where groups
are of 32 or 64 (cuda_sweep.py takes the others). kernels_tile.py has the same in Triton, for 8 bits
and for machines without NVRTC.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import BLOCK4, Packed, Packed4
from ..workspace import COUNTERS, Workspace
from . import cuda_row, few_rows

WARP_COLUMNS = 32
MOST_ROWS = 64
_SOURCE = Path(__file__).with_name("tile.cu")


@dataclass(frozen=True, slots=True)
class Cut:
    """How a product is cut: tiles of eight rows a block, warps a block, blocks that shall fit a
    multiprocessor, splits of the inputs."""

    tiles: int
    warps: int
    blocks: int
    splits: int


def takes(weight: Packed, x: torch.Tensor) -> bool:
    """Whether the kernel can run: 4 bits, few rows, NVRTC is here, and its loads are aligned."""
    return (
        isinstance(weight, Packed4)
        and x.shape[0] <= MOST_ROWS
        and x.data_ptr() % 16 == 0
        and cuda_row.aligned(weight, x)
    )


def cut_of(weight: Packed4, rows: int, device: int) -> Cut:
    """Blocks for every multiprocessor, each with as much of the inputs as that leaves."""
    tiles = 1 if rows <= 8 else 2 if rows <= 16 else 4
    warps, blocks = 4, 2 if tiles == 4 else 4
    inputs, outputs = weight.shape
    units, passes = inputs // BLOCK4, -(-rows // (8 * tiles))
    columns = -(-outputs // (WARP_COLUMNS * warps)) * passes
    splits = max(1, min(units, blocks * cuda_row.multiprocessors(device) // columns))
    return Cut(tiles, warps, blocks, -(-units // -(-units // splits)))


def product(
    x: torch.Tensor,
    weight: Packed4,
    bias: torch.Tensor | None,
    workspace: Workspace,
    cut: Cut | None = None,
) -> torch.Tensor:
    """y [rows, out] = x [rows, in] @ W + bias; x 16-bit contiguous. `cut` overrides `cut_of`."""
    outputs = weight.shape[1]
    rows, device = x.shape[0], x.device.index or 0
    cut = cut or cut_of(weight, rows, device)
    blocks = -(-outputs // (WARP_COLUMNS * cut.warps))
    over_rows, splits = -(-rows // (8 * cut.tiles)), cut.splits
    if blocks * over_rows > COUNTERS:
        splits = 1
    while splits > 1 and 4 * splits * rows * outputs > workspace.scratch.numel():
        splits //= 2
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    arguments = few_rows.arguments(x, weight, bias, y, workspace.sums(), workspace.counters)
    constants = {
        "GROUP": weight.group_size,
        **few_rows.kinds(x, weight),
        "WARPS": cut.warps,
        "BLOCKS": cut.blocks,
        "TILES": cut.tiles,
    }
    kernel = nvrtc.compile_kernel(_SOURCE, "tile", constants, device, 0)
    kernel.launch((blocks, splits, over_rows), 32 * cut.warps, arguments)
    return y
