"""What tile.cu, ring.cu and sweep.cu are launched with: one parameter, the same for all three."""

import ctypes

import torch

from ..layout import Packed, Packed4
from ..workspace import Workspace

_POINTERS = ("x", "words", "zeros", "scales", "bias", "y", "partial", "arrived")
_SIZES = ("rows", "inputs", "outputs", "words_row", "zeros_row", "scales_row")


class Args(ctypes.Structure):
    """`Args` of few_rows.cuh, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int) for name in _SIZES),
    ]


def arguments(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    y: torch.Tensor,
    workspace: Workspace,
) -> Args:
    """y = x [rows, in] @ W + bias; 8 bits have no zero points, and their scales no rows."""
    four = isinstance(weight, Packed4)
    zeros = weight.zeros if isinstance(weight, Packed4) else None
    tensors = (
        x, weight.words, zeros, weight.scales, bias, y, workspace.scratch, workspace.counters,
    )  # fmt: skip
    return Args(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
        x.shape[0], *weight.shape,
        weight.words.stride(-2),
        0 if zeros is None else zeros.stride(-2),
        weight.scales.stride(-2) if four else 0,
    )  # fmt: skip
