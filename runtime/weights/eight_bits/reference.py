"""What products in 8 bits compute, in plain torch: the truth that their kernels are held to.

A row's inputs are rounded to e4m3 under a scale for each block of 128, the group of the weights.
Codes of 4 bits less their zero point are integers of -15 to 15, which e4m3 holds exactly, so the
weights are the checkpoint's: only the rows are rounded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128  # inputs that share a scale
LARGEST = 448.0  # of e4m3
SMALLEST = 2.0**-60  # largest magnitude of a block that is taken for zeros


@dataclass(frozen=True, slots=True)
class EightBitRows:
    """`count` rows of inputs: e4m3 `codes` [M, K], float32 `scales` [K / BLOCK, M]; behind them, M
    may be more, lies anything."""

    codes: Tensor
    scales: Tensor
    count: int

    def values(self, dtype: torch.dtype) -> Tensor:
        """[count, K] in `dtype`."""
        blocks = self.codes[: self.count].float().unflatten(1, (-1, BLOCK))
        return (blocks * self.scales.mT[: self.count, :, None]).flatten(1).to(dtype)


def quantized_rows(x: Tensor) -> EightBitRows:
    """Rows [M, K], K a multiple of BLOCK."""
    blocks = x.float().unflatten(1, (-1, BLOCK))
    most = blocks.abs().amax(dim=2).clamp(min=SMALLEST)
    scaled = blocks * (LARGEST / most)[:, :, None]
    codes = scaled.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return EightBitRows(codes.flatten(1), (most * (1 / LARGEST)).mT.contiguous(), len(x))
