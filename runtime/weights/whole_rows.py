"""Rows of x in whole numbers, as stream.cu and parts.cu multiply them: their bytes, in torch.

x is 16 bits of fixed point: for each 128 inputs of a row a power of two, by the largest of them.
Its upper byte is rounded and its lower byte has a sign, x = (256 upper + lower) 2^e. What is left
out is 2^-15 of the largest at most, 2^-14 in float16, whose numbers have more digits.
"""

import torch

from .layout import BLOCK4

_TOP = {torch.bfloat16: 14, torch.float16: 13}  # exponent of the largest of 128
_MOST = 32639  # 127 * 256 + 127


def whole_rows(x: torch.Tensor, rows: int) -> torch.Tensor:
    """x [n, in] as `rows` rows, those past n zeros: uint8 as whole.cuh draws them."""
    units = x.shape[1] // BLOCK4
    padded = torch.nn.functional.pad(x.float(), (0, 0, 0, rows - x.shape[0]))
    numbers = padded.view(rows, units, BLOCK4)
    exponent = (numbers.abs().amax(-1).view(torch.int32) >> 23).clamp(min=15)
    top = _TOP[x.dtype]
    steps = ((254 + top - exponent) << 23).view(torch.float32)
    whole = (numbers * steps[..., None]).round().clamp(max=_MOST).int()
    upper = (whole + 128) >> 8
    # Input 32 plane + 4 i + 2 pair + odd of a unit; thread i / 2, its half i % 2.
    sides = torch.stack((upper, whole - 256 * upper), 1).to(torch.int8)
    pieces = sides.view(rows, 2, units, 4, 4, 2, 2, 2).permute(2, 7, 0, 1, 4, 5, 6, 3)
    counts = ((exponent - top) << 23).int()
    sums = whole.sum(-1, dtype=torch.int32)
    measures = torch.stack((counts, sums), -1).transpose(0, 1)
    parts = (part.contiguous().view(-1).view(torch.uint8) for part in (pieces, measures))
    return torch.cat(list(parts))
