"""What products in 8 bits compute, in plain torch: the truth that their kernels are held to.

Rows are rounded to e4m3 under a scale each, 4-bit weights under one for each output: three bits of
mantissa, whatever the size, so that an outlier costs its neighbours nothing. Sums are float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..layout import Packed4

LARGEST = 448.0  # of e4m3
SMALLEST = 2.0**-60  # largest magnitude of a row or an output that is taken for zeros
CODES = 15.0  # a 4-bit code less its zero point is no larger


@dataclass(frozen=True, slots=True)
class EightBitRows:
    """Rows of inputs: e4m3 `codes` [M, K], float32 `scales` [M, 1]."""

    codes: Tensor
    scales: Tensor

    def values(self, dtype: torch.dtype) -> Tensor:
        """[M, K] in `dtype`."""
        return (self.codes.float() * self.scales).to(dtype)


def quantized_rows(x: Tensor) -> EightBitRows:
    """Rows [M, K] under the scales of their largest magnitudes."""
    x = x.float()
    most = x.abs().amax(dim=1, keepdim=True).clamp(min=SMALLEST)
    codes = (x * (LARGEST / most)).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return EightBitRows(codes, most * (1 / LARGEST))


def quantized_weight(weight: Packed4) -> tuple[Tensor, Tensor]:
    """e4m3 codes [out, in] and float32 scales [1, out] of a 4-bit matrix, under the scales of what
    an output's largest group scale allows."""
    most = (weight.scales.float().amax(dim=0) * CODES).clamp(min=SMALLEST)
    scaled = weight.dequantized(torch.float32) * (LARGEST / most)
    return scaled.mT.to(torch.float8_e4m3fn), (most * (1 / LARGEST))[None]


def rounded_weight(weight: Packed4, dtype: torch.dtype) -> Tensor:
    """[in, out]: the weight as products in 8 bits multiply by it."""
    codes, scales = quantized_weight(weight)
    return (codes.float() * scales.mT).mT.to(dtype)
