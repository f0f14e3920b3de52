"""Host side of row.cu: what it takes, its constants, how the work is cut, its launch.

Products of one or two rows on the plain fp32 units. kernels.py has the same in Triton, for
machines without NVRTC; on an H200 this one is faster (docs/weights_runtime.md).
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from ...kernels import nvrtc
from ..layout import Packed, Packed4

RUN = 8  # rows of words a lane takes at a time
WARPS = 16
RESULTS = 2**16  # bytes that sums of a block's warps may take
_GATED_COST = {16: 1.0, 8: 1.25, 4: 1.55}  # of a column, by lanes
_SOURCE = Path(__file__).with_name("row.cu")
_POINTERS = ("x", "words", "zeros", "scales", "bias", "y", "experts")
_STRIDES = ("words_expert", "zeros_expert", "scales_expert", "bias_expert")
_SIZES = ("rows", "inputs", "outputs", "words_row", "zeros_row", "scales_row", "x_every")


class _Args(ctypes.Structure):
    """`Args` of row.cu, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_longlong) for name in _STRIDES),
        *((name, ctypes.c_int) for name in _SIZES),
    ]


@dataclass(frozen=True, slots=True)
class RowCut:
    """How a product is cut: rows of x a block, lanes side by side, blocks over the columns."""

    rows: int
    lanes: int
    blocks: int

    def shared_bytes(self, bits: int, group: int, inputs: int, strips: int) -> int:
        """What a block keeps in shared memory: inputs, their sums, sums of its warps."""
        codes, sums = 32 // bits, 128 // group if bits == 4 else 2
        runs = -(-inputs // codes // RUN)
        inputs_sums = -(-self.rows * runs * sums // 4) * 4
        most = -(-strips // self.blocks)  # strips of a block
        results = most * self.rows * WARPS * 4 * self.lanes
        return 4 * (self.rows * runs * (RUN * codes + 4) + inputs_sums + results)


def aligned(weight: Packed, x: torch.Tensor) -> bool:
    """Whether NVRTC is here, and the CUDA kernels' loads are aligned."""
    good = weight.words.data_ptr() % 16 == 0 and weight.words.stride(-2) % 4 == 0
    good = good and weight.scales.data_ptr() % 8 == 0 and weight.shape[1] % 4 == 0
    good = good and x.data_ptr() % 16 == 0 and weight.shape[0] % 16 == 0
    if isinstance(weight, Packed4):
        good = good and weight.scales.stride(-2) % 4 == 0
    return good and x.is_cuda and nvrtc.available()


def takes(weight: Packed, x: torch.Tensor, *, rows: int | None = None, gated: int = 0) -> bool:
    """Whether the kernel can run: see `aligned`; its inputs fit the shared memory."""
    if not aligned(weight, x):
        return False
    device = x.device.index or 0
    cut = cut_of(weight, 1, rows or x.shape[0], gated, multiprocessors(device))
    return _shared_bytes(weight, cut, gated) <= nvrtc.shared_memory(device)


def faster(rows: int) -> bool:
    """Whether this beats the tensor cores' kernels for that many rows, measured on an H200."""
    return rows <= 2


def cut_of(weight: Packed, at_once: int, rows: int, gated: int, processors: int) -> RowCut:
    """Strips of the width that deals them most evenly to the multiprocessors.

    Wider ones are better where it makes little difference: their rows are whole lines of memory. A
    gated strip has half of its columns from each half, so its lines are half as long: for 4096 x
    28672 an H200 takes 23.1 us with 16 lanes, 25.7 with 8 and 31.9 with 4, though 8 and 4 deal
    the strips more evenly.
    """
    width = weight.shape[1] // 2 if gated else weight.shape[1]
    groups = -(-rows // at_once)

    def cost(lanes: int) -> float:
        strips = -(-width // _width(lanes, gated))
        rounds = -(-strips * groups // processors)
        return rounds * lanes * (_GATED_COST[lanes] if gated else 1.05 if lanes == 4 else 1.0)

    lanes = min((16, 8, 4), key=cost)
    strips = -(-width // _width(lanes, gated))
    most = RESULTS // (at_once * WARPS * 16 * lanes)
    return RowCut(at_once, lanes, min(strips, max(processors // groups, -(-strips // most))))


def _width(lanes: int, gated: int) -> int:
    """Columns of y a strip."""
    return 2 * lanes if gated else 4 * lanes


def _shared_bytes(weight: Packed, cut: RowCut, gated: int) -> int:
    bits, group = (4, weight.group_size) if isinstance(weight, Packed4) else (8, 128)
    width = weight.shape[1] // 2 if gated else weight.shape[1]
    return cut.shared_bytes(bits, group, weight.shape[0], -(-width // _width(cut.lanes, gated)))


def product(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    *,
    experts: torch.Tensor | None = None,
    rows: int | None = None,
    cut: RowCut | None = None,
    gated: int = 0,
    early: bool = True,
) -> torch.Tensor:
    """y [rows, out] = x @ W + bias, or each row by its own expert as in `launch.one_row`.

    x [n, in] 16-bit contiguous. `cut` overrides `cut_of`; `gated` as in `linear.multiply_gated`.
    `early` may be switched off to compare.
    """
    inputs, outputs = weight.shape
    count = rows or x.shape[0]
    device = x.device.index or 0
    zeros = weight.zeros if isinstance(weight, Packed4) else None
    group = weight.group_size if isinstance(weight, Packed4) else 128
    if cut is None:
        both = experts is None and count > 1 and group == 128
        cut = cut_of(weight, 2 if both else 1, count, gated, multiprocessors(device))
        if both and _shared_bytes(weight, cut, gated) > nvrtc.shared_memory(device):
            cut = cut_of(weight, 1, count, gated, multiprocessors(device))
    y = torch.empty(count, outputs // 2 if gated else outputs, dtype=x.dtype, device=x.device)
    chosen = None if experts is None else experts.long()
    stacks = (weight.words, zeros, weight.scales, bias)
    tensors = (x, weight.words, zeros, weight.scales, bias, y, chosen)
    arguments = _Args(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
        *(0 if t is None or chosen is None else t.stride(0) for t in stacks),
        count, inputs, outputs,
        weight.words.stride(-2),
        0 if zeros is None else zeros.stride(-2),
        0 if zeros is None else weight.scales.stride(-2),
        count // x.shape[0],
    )  # fmt: skip
    constants = {
        "BITS": 8 if zeros is None else 4,
        "GROUP": group,
        "HALF": int(x.dtype == torch.float16),
        "SCALES_HALF": int(weight.scales.dtype == torch.float16),
        "GATED": gated,
        "WARPS": WARPS,
        "ROWS": cut.rows,
        "LANES": cut.lanes,
    }
    shared = _shared_bytes(weight, cut, gated)
    kernel = nvrtc.compile_kernel(_SOURCE, "row", constants, device, shared)
    kernel.launch((cut.blocks, -(-count // cut.rows), 1), 32 * WARPS, arguments, early=early)
    return y


@functools.cache
def multiprocessors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
