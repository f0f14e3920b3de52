"""Host side of row.cu: what it takes, its constants, how the work is cut, its launch.

Products of one or two rows on the plain fp32 units. kernels.py has the same in Triton, for
machines without NVRTC; on an H200 this one is faster (docs/weights_runtime.md).
"""

import ctypes
import functools
from pathlib import Path

import torch

from ..kernels import nvrtc
from .layout import Packed, Packed4
from .workspace import COUNTERS, Workspace

COLUMNS = 128  # of a block
UNIT = 16  # rows of words a warp takes at a time
MOST_SPLITS = 16
_SOURCE = Path(__file__).with_name("row.cu")
_POINTERS = ("x", "words", "zeros", "scales", "bias", "y", "partial", "arrived", "experts")
_STRIDES = ("words_expert", "zeros_expert", "scales_expert", "bias_expert")
_SIZES = ("rows", "inputs", "outputs", "words_row", "zeros_row", "scales_row", "x_every")


class _Args(ctypes.Structure):
    """`Args` of row.cu, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_longlong) for name in _STRIDES),
        *((name, ctypes.c_int) for name in _SIZES),
    ]


def takes(weight: Packed, x: torch.Tensor) -> bool:
    """Whether the kernel can run: NVRTC is here, and its loads are aligned."""
    aligned = weight.words.data_ptr() % 16 == 0 and weight.words.stride(-2) % 4 == 0
    aligned = aligned and weight.scales.data_ptr() % 8 == 0 and weight.shape[1] % 4 == 0
    aligned = aligned and x.data_ptr() % 8 == 0
    if isinstance(weight, Packed4):
        aligned = aligned and weight.scales.stride(-2) % 4 == 0
    return aligned and x.is_cuda and nvrtc.available()


def faster(rows: int) -> bool:
    """Whether this beats the tensor cores' kernels for that many rows, measured on an H200."""
    return rows <= 2


def plan(weight: Packed, tiles: int, device: int) -> tuple[int, int]:
    """(warps a block, splits of the inputs) for `tiles` tiles of rows, measured on an H200.

    Columns alone fill the GPU with eight warps a block where the matrix is wide. Elsewhere the
    inputs are split until every multiprocessor has two blocks, or warps have one unit each.
    """
    inputs, outputs = weight.shape
    four = isinstance(weight, Packed4)
    units = -(-inputs // (8 if four else 4) // UNIT)
    blocks = -(-outputs // COLUMNS) * tiles
    processors = multiprocessors(device)
    warps = 8 if (not four or 4 * blocks >= 3 * processors) and units >= 8 else 4
    if four and warps == 8:
        return 8, 1
    return warps, max(1, min(MOST_SPLITS, 2 * processors // blocks, units // warps))


def product(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    workspace: Workspace,
    *,
    experts: torch.Tensor | None = None,
    rows: int | None = None,
    cut: tuple[int, int] | None = None,
) -> torch.Tensor:
    """y [rows, out] = x @ W + bias, or each row by its own expert as in `launch.one_row`.

    x [n, in] 16-bit contiguous. `cut` overrides `plan`.
    """
    inputs, outputs = weight.shape
    count = rows or x.shape[0]
    device = x.device.index or 0
    at_once = 1 if experts is not None or count == 1 else 2 if count == 2 else 4
    blocks, tiles = -(-outputs // COLUMNS), -(-count // at_once)
    warps, splits = cut or plan(weight, tiles, device)
    if blocks * tiles > COUNTERS or 4 * splits * count * outputs > workspace.scratch.numel():
        splits = 1
    y = torch.empty(count, outputs, dtype=x.dtype, device=x.device)
    zeros = weight.zeros if isinstance(weight, Packed4) else None
    chosen = None if experts is None else experts.long()
    stacks = (weight.words, zeros, weight.scales, bias)
    arguments = _Args(
        *(
            None if tensor is None else tensor.data_ptr()
            for tensor in (
                x, weight.words, zeros, weight.scales, bias, y,
                workspace.scratch, workspace.counters, chosen,
            )
        ),
        *(0 if t is None or chosen is None else t.stride(0) for t in stacks),
        count, inputs, outputs,
        weight.words.stride(-2),
        0 if zeros is None else zeros.stride(-2),
        0 if zeros is None else weight.scales.stride(-2),
        count // x.shape[0],
    )  # fmt: skip
    constants = {
        "BITS": 8 if zeros is None else 4,
        "GROUP": weight.group_size if isinstance(weight, Packed4) else 128,
        "HALF": int(x.dtype == torch.float16),
        "SCALES_HALF": int(weight.scales.dtype == torch.float16),
        "WARPS": warps,
        "MOST": MOST_SPLITS,
        "ROWS": at_once,
    }
    kernel = _kernel(tuple(constants.items()), device)
    kernel.launch((blocks, splits, tiles), 32 * warps, arguments)
    return y


@functools.cache
def _kernel(constants: tuple[tuple[str, int], ...], device: int) -> nvrtc.Kernel:
    return nvrtc.compile_kernel(_SOURCE, "row", dict(constants), device, 0)


@functools.cache
def multiprocessors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
