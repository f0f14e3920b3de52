"""Host side of stream.cu: what it takes, how the work is cut, its launch.

Products of one to eight rows with 4-bit matrices of groups of 128, in whole numbers on the tensor
cores (docs/weights_runtime.md). Other groups, 8 bits and experts: cuda_row.py; inputs that do not
fit the shared memory: cuda_sweep.py.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import BLOCK4, Packed, Packed4
from ..workspace import Workspace
from . import cuda_row, few_rows

STRIP = 32  # columns of a strip
WARPS = 16
ROWS = (1, 2, 4, 8)
AHEAD = 3  # tiles a warp has in flight: 2 to 4 were timed
_SOURCE = Path(__file__).with_name("stream.cu")


@dataclass(frozen=True, slots=True)
class StreamCut:
    """How a product is cut: rows of x, padded; tiles a warp has in flight; blocks."""

    rows: int
    ahead: int
    blocks: int

    def shared_bytes(self, inputs: int, strips: int, gated: int) -> int:
        """What a block keeps in shared memory: x, its measures, sums of its warps."""
        measures = -(-inputs // BLOCK4 * self.rows // 2) * 2 * 8
        most = -(-strips // self.blocks) * (2 if gated else 1)
        return 2 * inputs * self.rows + measures + most * WARPS * self.rows * STRIP * 4


def cut_of(
    inputs: int, outputs: int, rows: int, gated: int, processors: int, room: int
) -> StreamCut:
    """As many strips a block as one round of blocks takes, or as its shared memory holds."""
    padded = next(n for n in ROWS if n >= rows)
    strips = outputs // STRIP // (2 if gated else 1)
    one = StreamCut(padded, 0, strips).shared_bytes(inputs, strips, gated)
    sums = WARPS * padded * STRIP * 4 * (2 if gated else 1)
    most = min(max(1, 1 + (room - one) // sums), -(-strips // processors))
    return StreamCut(padded, AHEAD, -(-strips // most))


def _cut(weight: Packed, rows: int, gated: int, device: int) -> StreamCut:
    processors, room = cuda_row.multiprocessors(device), nvrtc.shared_memory(device)
    return cut_of(*weight.shape, rows, gated, processors, room)


def faster(rows: int, gated: int) -> bool:
    """Whether this beats the other kernels for that many rows, measured on an H200."""
    return rows <= 4 or (bool(gated) and rows <= ROWS[-1])


def takes(weight: Packed, x: torch.Tensor, *, gated: int = 0) -> bool:
    """Whether the kernel can run: 4 bits in groups of 128, rows, alignment, shared memory."""
    rows, device = x.shape[0], x.device.index or 0
    if rows > ROWS[-1] or not (cuda_row.aligned(weight, x) and few_rows.in_chunks(weight, gated)):
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    inputs, outputs = weight.shape
    strips = outputs // STRIP // (2 if gated else 1)
    needed = _cut(weight, rows, gated, device).shared_bytes(inputs, strips, gated)
    return needed <= nvrtc.shared_memory(device)


def product(
    x: torch.Tensor,
    weight: Packed4,
    bias: torch.Tensor | None,
    workspace: Workspace,
    cut: StreamCut | None = None,
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
    cut = cut or _cut(weight, rows, gated, device)
    width = outputs // 2 if gated else outputs
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    constants = few_rows.kinds(x, weight) | {
        "ROWS": cut.rows, "GATED": gated, "WARPS": WARPS, "AHEAD": cut.ahead,
    }  # fmt: skip
    shared = cut.shared_bytes(inputs, width // STRIP, gated)
    kernel = nvrtc.compile_kernel(_SOURCE, "stream", constants, device, shared)
    arguments = few_rows.arguments(x, weight, bias, y, workspace.sums(), workspace.counters)
    kernel.launch((cut.blocks, 1, 1), 32 * WARPS, arguments, early=early)
    return y
