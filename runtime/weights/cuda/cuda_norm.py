"""Host side of norm.cu: a norm whose rows are there in whole numbers too, for the product behind.

Whole numbers lie in the workspace's scratch until a product of parts.cu finds them
(workspace.py). Where they would not be looked for, fused_kernels.py's norm does less.
"""

import ctypes
from pathlib import Path

import torch

from ....planner.latency.parts_cut import padded_rows
from ...kernels import nvrtc
from ..layout import BLOCK4
from ..workspace import Workspace
from . import cuda_parts

_FEW_WARPS, _MOST_WARPS = 8, 16  # the fewer, while a thread has no more than `_MOST_UNITS`
_MOST_UNITS = 2  # of a thread: what its registers hold
_AT_ONCE = 4  # units that a warp takes
_SHARED = 120 * 1024
"""Bytes of shared memory that a block asks for and leaves alone: a multiprocessor has one at most,
and none beside a block of the product before, which its launch overlaps (timed: docs/LOG.md)."""
_SOURCE = Path(__file__).with_name("norm.cu")


class _Args(ctypes.Structure):
    """`Args` of norm.cu, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "residual", "weight", "out", "total", "whole")),
        ("width", ctypes.c_int),
        ("eps", ctypes.c_float),
    ]


def takes(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether rows x [n, width] are of the kind, and so many that parts.cu follows."""
    return (
        x.is_cuda
        and cuda_parts.in_range(x.shape[0])
        and x.dtype == weight.dtype
        and x.dtype in (torch.bfloat16, torch.float16)
        and x.shape[1] % BLOCK4 == 0
        and x.shape[1] <= BLOCK4 * _MOST_WARPS * _AT_ONCE * _MOST_UNITS
        and all(t.data_ptr() % 8 == 0 for t in (x, weight))
        and nvrtc.available()
        and torch.cuda.get_device_capability(x.device)[0] == 9
    )


def norm(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    workspace: Workspace,
    *,
    offset: bool,
    in_place: bool = False,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(norm, sum) of rows x [n, width], contiguous, or of x + residual, whose place the sum takes
    with `in_place`; without one the sum is x.

    None where the scratch is too small. `takes` must hold.
    """
    rows, width = x.shape
    padded = padded_rows(rows)
    out = torch.empty_like(x)
    whole = workspace.keep_whole(out, padded)
    if whole is None:
        return None
    total = x if residual is None else residual if in_place else torch.empty_like(x)
    quads = -(-width // (BLOCK4 * _AT_ONCE))
    warps = min(_FEW_WARPS if quads <= _FEW_WARPS * _MOST_UNITS else _MOST_WARPS, quads)
    constants = {
        "HALF": int(x.dtype == torch.float16), "ROWS": padded, "OFFSET": int(offset),
        "ADD": int(residual is not None), "WARPS": warps, "UNITS": -(-quads // warps),
    }  # fmt: skip
    tensors = x, x if residual is None else residual, weight, out, total, whole
    arguments = _Args(*(tensor.data_ptr() for tensor in tensors), width, eps)
    device = x.device.index or 0
    kernel = nvrtc.compile_kernel(_SOURCE, "whole_norm", constants, device, _SHARED)
    kernel.launch((rows, 1, 1), 32 * warps, arguments, early=True)
    return out, total
