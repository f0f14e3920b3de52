"""Host side of wide.cu: what it takes, how the work is cut, its launch.

Products of up to 64 rows with 4-bit matrices of groups of 128 by Hopper's warpgroups
(docs/weights_runtime.md). Other GPUs, groups and 8 bits: cuda_tile.py, cuda_ring.py.
"""

import functools
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import BLOCK4, Packed, Packed4
from ..workspace import Workspace
from . import cuda_row, few_rows

COLUMNS = 256  # of a block
THREADS = 256
ROWS = (16, 32, 64)
STAGES = {16: 9, 32: 8, 64: 6}
MOST_SPLITS = 4  # blocks of a cluster: eight do as well alone, but begin later
_SOURCE = Path(__file__).with_name("wide.cu")


def faster(rows: int) -> bool:
    """Whether this beats the other kernels for that many rows, measured on an H200."""
    return 16 < rows <= ROWS[-1]


def takes(weight: Packed, x: torch.Tensor, *, gated: int = 0) -> bool:
    """Whether the kernel can run: 4 bits in groups of 128, rows, its loads' alignment, Hopper."""
    return (
        x.shape[0] <= ROWS[-1]
        and few_rows.in_chunks(weight, gated)
        and cuda_row.aligned(weight, x)
        and torch.cuda.get_device_capability(x.device)[0] == 9
    )


def shared_bytes(rows: int) -> int:
    """What a block keeps in shared memory: stages of x, words, scales and zeros; then its sums."""
    stage = rows * 256 + 16 * (4 * COLUMNS + 32) + 2 * COLUMNS + COLUMNS // 2
    return max(STAGES[rows] * stage, rows * (COLUMNS + 4) * 4)


def splits_of(inputs: int, blocks: int, processors: int) -> int:
    """Blocks that share the inputs: the power of two that fills the GPU, each with a unit."""
    splits = 1
    while 2 * splits <= MOST_SPLITS and 2 * splits * blocks <= processors:
        splits *= 2
    return min(splits, 1 << (inputs // BLOCK4).bit_length() - 1)


def product(
    x: torch.Tensor,
    weight: Packed4,
    bias: torch.Tensor | None,
    workspace: Workspace,
    splits: int | None = None,
    *,
    gated: int = 0,
    early: bool = True,
) -> torch.Tensor:
    """y [rows, out] = x [rows, in] @ W + bias; x 16-bit contiguous.

    `splits` overrides `splits_of`; `gated` as in `linear.multiply_gated`; `early` may be switched
    off to compare.
    """
    inputs, outputs = weight.shape
    rows, device = x.shape[0], x.device.index or 0
    width = outputs // 2 if gated else outputs
    blocks = -(-outputs // COLUMNS)
    splits = splits or splits_of(inputs, blocks, cuda_row.multiprocessors(device))
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    padded = next(n for n in ROWS if n >= rows)
    constants = few_rows.kinds(x, weight) | {
        "ROWS": padded, "GATED": gated, "SPLITS": splits, "STAGES": STAGES[padded],
    }  # fmt: skip
    kernel = _kernel(tuple(constants.items()), shared_bytes(padded), device)
    arguments = few_rows.arguments(x, weight, bias, y, workspace)
    kernel.launch((blocks, splits, 1), THREADS, arguments, early=early)
    return y


@functools.cache
def _kernel(constants: tuple[tuple[str, int], ...], shared: int, device: int) -> nvrtc.Kernel:
    return nvrtc.compile_kernel(_SOURCE, "wide", dict(constants), device, shared, own=True)
