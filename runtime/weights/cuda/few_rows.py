"""What the kernels of few rows are launched with: one parameter, the same for all of them."""

import ctypes

import torch

from ..layout import BLOCK4, Packed, Packed4

_CHUNK = 32  # columns whose zero points are 16 bytes
_POINTERS = ("x", "words", "zeros", "scales", "bias", "y", "partial", "arrived", "made")
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
    scratch: torch.Tensor,
    counters: torch.Tensor,
) -> Args:
    """y = x [rows, in] @ W + bias; 8 bits have no zero points, and their scales no rows."""
    four = isinstance(weight, Packed4)
    zeros = weight.zeros if isinstance(weight, Packed4) else None
    tensors = (
        x, weight.words, zeros, weight.scales, bias, y, scratch, counters, None,
    )  # fmt: skip
    return Args(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
        x.shape[0], *weight.shape,
        weight.words.stride(-2),
        0 if zeros is None else zeros.stride(-2),
        weight.scales.stride(-2) if four else 0,
    )  # fmt: skip


def kinds(x: torch.Tensor, weight: Packed) -> dict[str, int]:
    """The constants that every kernel has: which 16-bit numbers x and the scales are."""
    return {
        "HALF": int(x.dtype == torch.float16),
        "SCALES_HALF": int(weight.scales.dtype == torch.float16),
    }


def in_chunks(weight: Packed, gated: int) -> bool:
    """Whether it is of 4 bits in groups of 128, and 16 bytes of words, scales and zeros at a time
    are aligned and belong to one half of a gated matrix."""
    if not isinstance(weight, Packed4) or weight.group_size != BLOCK4:
        return False
    width = weight.shape[1] // 2 if gated else weight.shape[1]
    return (
        width % _CHUNK == 0
        and weight.zeros.data_ptr() % 16 == 0
        and weight.zeros.stride(-2) % 4 == 0
        and weight.scales.data_ptr() % 16 == 0
        and weight.scales.stride(-2) % 8 == 0
    )
