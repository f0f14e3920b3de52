"""Host side of wide.cu: what it takes, how the work is cut, its launch.

Products of up to 64 rows with 4-bit matrices of groups of 128 by Hopper's warpgroups
(docs/weights_runtime.md). Other GPUs, groups and 8 bits: cuda_tile.py, cuda_ring.py.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import BLOCK4, Packed, Packed4
from ..workspace import Workspace
from . import cuda_row, few_rows

COLUMNS = 256  # of a block
THREADS = 256
ROWS = (16, 32, 64)
_SOURCE = Path(__file__).with_name("wide.cu")


@dataclass(frozen=True, slots=True)
class WideCut:
    """How a product is cut: rows of x, padded; blocks that share the inputs; units of inputs in
    shared memory; blocks a multiprocessor."""

    rows: int
    splits: int
    stages: int
    blocks: int

    def shared_bytes(self) -> int:
        """What a block keeps in shared memory: stages of x, words, scales, zeros; then its sums."""
        stage = self.rows * 256 + 16 * (4 * COLUMNS + 32) + 2 * COLUMNS + COLUMNS // 2
        return max(self.stages * stage, self.rows * (COLUMNS + 4) * 4)


def cut_of(inputs: int, outputs: int, rows: int, processors: int) -> WideCut:
    """Chosen by measurement on an H200. Splits are the power of two that fills it, four at most:
    eight blocks of a cluster begin later."""
    padded = next(n for n in ROWS if n >= rows)
    stages, blocks, most = {16: (5, 2, 8), 32: (8, 1, 4), 64: (6, 1, 4)}[padded]
    splits = 1
    while 2 * splits <= most and 2 * splits * -(-outputs // COLUMNS) <= blocks * processors:
        splits *= 2
    splits = min(splits, 1 << (inputs // BLOCK4).bit_length() - 1)  # each has a unit
    return WideCut(padded, splits, stages, blocks)


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


def product(
    x: torch.Tensor,
    weight: Packed4,
    bias: torch.Tensor | None,
    workspace: Workspace,
    cut: WideCut | None = None,
    *,
    gated: int = 0,
    early: bool = True,
) -> torch.Tensor:
    """y [rows, out] = x [rows, in] @ W + bias; x 16-bit contiguous.

    `cut` overrides `cut_of`; `gated` as in `linear.multiply_gated`; `early` may be switched off
    to compare.
    """
    outputs = weight.shape[1]
    rows, device = x.shape[0], x.device.index or 0
    cut = cut or cut_of(*weight.shape, rows, cuda_row.multiprocessors(device))
    y = torch.empty(rows, outputs // 2 if gated else outputs, dtype=x.dtype, device=x.device)
    constants = few_rows.kinds(x, weight) | {
        "ROWS": cut.rows, "GATED": gated, "SPLITS": cut.splits, "STAGES": cut.stages,
        "BLOCKS": cut.blocks,
    }  # fmt: skip
    shared = cut.shared_bytes()
    kernel = nvrtc.compile_kernel(_SOURCE, "wide", constants, device, shared, own=True)
    arguments = few_rows.arguments(x, weight, bias, y, workspace.sums(), workspace.counters)
    kernel.launch((-(-outputs // COLUMNS), cut.splits, 1), THREADS, arguments, early=early)
    return y
