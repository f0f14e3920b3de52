"""Triton kernels that write the operands of products in 8 bits (reference.py) as cuBLAS has them.

Rows become e4m3 under a scale each. 4-bit weights become e4m3 [out, in], the inputs of an output
side by side, under a scale for each output that is found first.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from ..kernels import zero_points
from ..kernels_tile import nibbles
from ..layout import BLOCK4, ROWS4
from .reference import CODES, LARGEST, SMALLEST


@triton.jit
def quantize_rows(x, out, scales, K, x_row, WIDTH: tl.constexpr,
                  MOST: tl.constexpr = LARGEST, LEAST: tl.constexpr = SMALLEST):  # fmt: skip
    """out[M, K], scales[M] = x[M, K]; one program a row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDTH)
    inside = at < K
    values = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32)
    most = tl.maximum(tl.max(tl.abs(values), 0), LEAST)
    codes = tl.clamp(values * tl.math.div_rn(MOST, most), -MOST, MOST).to(tl.float8e4nv)
    tl.store(out + row * K + at, codes, mask=inside)
    tl.store(scales + row, most * (1 / MOST))


@triton.jit
def output_scales(scales, out_scales, groups, N, scales_row, COLUMNS: tl.constexpr,
                  GROUPS: tl.constexpr, MOST: tl.constexpr = LARGEST,
                  LEAST: tl.constexpr = SMALLEST, CODE: tl.constexpr = CODES):  # fmt: skip
    """out_scales[N]: what e4m3's largest stands for, of each output."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    group = tl.arange(0, GROUPS)
    mask = (group < groups)[:, None] & (columns < N)[None, :]
    at = group[:, None] * scales_row + columns[None, :]
    largest = tl.max(tl.load(scales + at, mask=mask, other=0.0).to(tl.float32), 0)
    most = tl.maximum(largest * CODE, LEAST)
    tl.store(out_scales + columns, most * (1 / MOST), mask=columns < N)


@triton.jit
def codes4(words, zeros, scales, out_scales, out, K, N, words_row, zeros_row, scales_row,
           GROUP: tl.constexpr, COLUMNS: tl.constexpr, MOST: tl.constexpr = LARGEST,
           BLOCK: tl.constexpr = BLOCK4, ROWS: tl.constexpr = ROWS4):  # fmt: skip
    """out[N, K] = W (4 bits) under out_scales; one program 128 inputs of COLUMNS outputs."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < N
    number = tl.program_id(1)
    lanes = tl.arange(0, ROWS)
    at = (number * ROWS + lanes)[None, :].to(tl.int64) * words_row + columns[:, None]
    packed = tl.load(words + at, mask=mask[:, None], other=0)
    # the largest that an output's scale was found from, as there
    most = tl.load(out_scales + columns, mask=mask, other=1.0) * MOST
    rows = columns.to(tl.int64)[:, None] * K + number * BLOCK
    for plane in tl.static_range(4):
        group = number * (BLOCK // GROUP) + plane * 32 // GROUP
        zero = zero_points(zeros + group * zeros_row, columns, mask)[:, None]
        scale = tl.load(scales + group * scales_row + columns, mask=mask, other=0.0)
        factor = (scale.to(tl.float32) * tl.math.div_rn(MOST, most))[:, None]
        low, high = nibbles(packed, plane)
        low = (low * 256.0 - (zero + 256.0)) * factor
        high = (high * 16.0 - (zero + 16.0)) * factor
        both = tl.interleave(low, high).to(tl.float8e4nv)  # [COLUMNS, 32]: inputs side by side
        inputs = plane * 32 + tl.arange(0, 2 * ROWS)
        tl.store(out + rows + inputs[None, :], both, mask=mask[:, None])
