"""Host side of tile.cu: what it takes, how the work is cut, its launch.

Products of three to thirty-two rows with 4-bit matrices on the tensor cores (more would read the
matrix twice: cuda_ring.py). kernels_tile.py has the same in Triton, for 8 bits and for machines
without NVRTC; on an H200 this one is faster, or about as fast for narrow matrices
(docs/weights_runtime.md).
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from ..kernels import nvrtc
from . import cuda_row
from .layout import BLOCK4, Packed, Packed4
from .workspace import COUNTERS, Workspace

WARP_COLUMNS = 32
MOST_ROWS = 64
_SOURCE = Path(__file__).with_name("tile.cu")
_POINTERS = ("x", "words", "zeros", "scales", "bias", "y", "partial", "arrived")
_SIZES = ("rows", "inputs", "outputs", "words_row", "zeros_row", "scales_row")


class _Args(ctypes.Structure):
    """`Args` of tile.cu, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int) for name in _SIZES),
    ]


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
    inputs, outputs = weight.shape
    rows, device = x.shape[0], x.device.index or 0
    cut = cut or cut_of(weight, rows, device)
    blocks = -(-outputs // (WARP_COLUMNS * cut.warps))
    over_rows, splits = -(-rows // (8 * cut.tiles)), cut.splits
    if blocks * over_rows > COUNTERS:
        splits = 1
    while splits > 1 and 4 * splits * rows * outputs > workspace.scratch.numel():
        splits //= 2
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    tensors = (
        x, weight.words, weight.zeros, weight.scales, bias, y,
        workspace.scratch, workspace.counters,
    )  # fmt: skip
    arguments = _Args(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
        rows, inputs, outputs,
        weight.words.stride(-2), weight.zeros.stride(-2), weight.scales.stride(-2),
    )  # fmt: skip
    constants = {
        "GROUP": weight.group_size,
        "HALF": int(x.dtype == torch.float16),
        "SCALES_HALF": int(weight.scales.dtype == torch.float16),
        "WARPS": cut.warps,
        "BLOCKS": cut.blocks,
        "TILES": cut.tiles,
    }
    kernel = _kernel(tuple(constants.items()), device)
    kernel.launch((blocks, splits, over_rows), 32 * cut.warps, arguments)
    return y


@functools.cache
def _kernel(constants: tuple[tuple[str, int], ...], device: int) -> nvrtc.Kernel:
    return nvrtc.compile_kernel(_SOURCE, "tile", dict(constants), device, 0)
