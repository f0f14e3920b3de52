"""Which number a code stands for: integers by themselves, tables of levels, 8-bit floats.

A packed value is level(code) * scale + offset. For integers the level is the code. A table has its
levels on the integers' own scale, from 0 to 2^b - 1, so that scale and offset are the same pair of
a group's range as theirs: what changes is where the levels lie between the ends.

    nf4      quantiles of a normal variable, with a zero among them (Dettmers et al., QLoRA, arXiv
             2305.14314, appendix E); here over a group's range, so that it has a zero point
    lloyd2   levels of least squared error for normal values over the range of a group (Lloyd,
    lloyd3   Max), of 2 and 3 bits; the more values share a scale, the further its ends lie out, so
             each width has levels of its own
    fp8      e4m3 (sign, 4 bits of exponent, 3 of mantissa), times 2^-8, which puts its 448 at 1.75:
             the scale is the group's largest magnitude / 1.75, the offset 0

Two formats of the field bring their own blocks of a token's channels, with a byte a block in the
place of the pair (runtime/cache/block_scales.py). Their levels are e2m1's, which have a sign, two
bits of exponent and one of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4 and 6.

    mxfp4    blocks of 32, scales of e8m0, a power of two each (OCP Microscaling Formats 1.0)
    nvfp4    blocks of 16, scales of e4m3 beside one float32 a head and sequence

tests/planner/formats/test_code_tables.py derives the levels again.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FP8 = "fp8"
FP8_MOST = 1.75
"""Level of the largest e4m3 code."""
CODED = {"fp8": 8, "nf4": 4, "lloyd3": 3, "lloyd2": 2, "nvfp4": 4, "mxfp4": 4}
"""Named formats that our own cache holds, with the bits of a code."""
NVFP4, MXFP4 = "nvfp4", "mxfp4"
BLOCKS = {NVFP4: 16, MXFP4: 32}
"""Those that bring their own blocks: channels of a token that share a scale of one byte."""
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of a block's codes; the code's fourth bit is the sign."""

_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
)
# Upper half of the levels, as distances from the middle of the range; the lower half mirrors it.
_LLOYD2: dict[int, tuple[float, ...]] = {
    32: (0.3298, 1.1018),
    64: (0.2966, 0.9929),
    128: (0.2695, 0.9028),
    256: (0.2476, 0.8293),
}
_LLOYD3: dict[int, tuple[float, ...]] = {
    32: (0.3855, 1.1854, 2.0848, 3.2320),
    64: (0.3594, 1.1050, 1.9570, 3.0830),
    128: (0.3337, 1.0290, 1.8280, 2.9075),
    256: (0.3101, 0.9570, 1.7025, 2.7228),
}


@lru_cache(maxsize=64)
def levels(table: str, shared: int) -> NDArray[np.float32]:
    """Levels of a table's codes in ascending order, float32 [2^b]; `shared` values share a scale.

    Raises KeyError for what has no levels over a range: integers (""), fp8 and blocks.
    """
    if table == "nf4":
        return ((np.array(_NF4) + 1.0) * 7.5).astype(np.float32)
    halves = {"lloyd2": _LLOYD2, "lloyd3": _LLOYD3}[table]
    width = min(halves, key=lambda n: abs(np.log2(n) - np.log2(max(shared, 1))))
    upper = np.array(halves[width])
    middle = (2 * len(upper) - 1) / 2
    return np.concatenate([middle - upper[::-1], middle + upper]).astype(np.float32)


def boundaries(table: str, shared: int) -> NDArray[np.float32]:
    """Midpoints of neighbouring levels, float32 [2^b - 1]: a value's code is how many lie below."""
    values = levels(table, shared)
    return ((values[1:] + values[:-1]) / 2).astype(np.float32)


PLANES = {6: (4, 2), 5: (4, 1), 3: (2, 1)}


def planes(bits: int) -> tuple[int, ...]:
    """Widths of the parts that codes of `bits` are stored in, the low bits first: a row of each,
    one behind the other. Widths that divide a byte are one part."""
    return PLANES.get(bits, (bits,))


def row_bytes(dim: int, bits: int) -> int:
    """Bytes of a head's row of `dim` codes of `bits`; each part fills whole bytes."""
    return sum(-(-dim * part // 8) for part in planes(bits))
