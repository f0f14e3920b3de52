"""Triton kernels that write the operands of products in 8 bits (reference.py) as cuBLAS has them.

Rows become e4m3 in blocks of 128 inputs with float32 scales, stored block by block. Codes of 4-bit
weights, less their zero points, become e4m3 [out, in], the inputs of an output side by side.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from ..kernels import zero_points
from ..kernels_tile import nibbles
from ..layout import BLOCK4, ROWS4
from .reference import BLOCK, LARGEST, SMALLEST


@triton.jit
def quantize_rows(x, out, scales, M, K, x_row, held,
                  ROWS: tl.constexpr, WIDTH: tl.constexpr = BLOCK,
                  MOST: tl.constexpr = LARGEST, LEAST: tl.constexpr = SMALLEST):  # fmt: skip
    """out[M, K], scales[K / 128, held] = x[M, K]; one program 128 inputs of ROWS rows."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    block = tl.program_id(1)
    inside = rows < M
    at = block * WIDTH + tl.arange(0, WIDTH)
    values = tl.load(x + rows[:, None] * x_row + at[None, :], mask=inside[:, None], other=0.0)
    values = values.to(tl.float32)
    most = tl.maximum(tl.max(tl.abs(values), 1), LEAST)
    codes = tl.clamp(values * tl.math.div_rn(MOST, most)[:, None], -MOST, MOST).to(tl.float8e4nv)
    tl.store(out + rows[:, None] * K + at[None, :], codes, mask=inside[:, None])
    tl.store(scales + block.to(tl.int64) * held + rows, most * (1 / MOST), mask=inside)


@triton.jit
def codes4(words, zeros, scales, out, out_scales, K, N, words_row, zeros_row, scales_row,
           COLUMNS: tl.constexpr,
           BLOCK: tl.constexpr = BLOCK4, ROWS: tl.constexpr = ROWS4):  # fmt: skip
    """out[N, K] = codes - zeros of 4-bit weights in groups of 128, out_scales[K / 128, N] = their
    scales; one program a group of COLUMNS outputs."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < N
    number = tl.program_id(1)
    lanes = tl.arange(0, ROWS)
    at = (number * ROWS + lanes)[None, :].to(tl.int64) * words_row + columns[:, None]
    packed = tl.load(words + at, mask=mask[:, None], other=0)
    zero = zero_points(zeros + number * zeros_row, columns, mask)[:, None]
    scale = tl.load(scales + number * scales_row + columns, mask=mask, other=0.0)
    tl.store(out_scales + number.to(tl.int64) * N + columns, scale.to(tl.float32), mask=mask)
    rows = columns.to(tl.int64)[:, None] * K + number * BLOCK
    for plane in tl.static_range(4):
        low, high = nibbles(packed, plane)
        low = low * 256.0 - (zero + 256.0)
        high = high * 16.0 - (zero + 16.0)
        both = tl.interleave(low, high).to(tl.float8e4nv)  # [COLUMNS, 32]: inputs side by side
        inputs = plane * 32 + tl.arange(0, 2 * ROWS)
        tl.store(out + rows + inputs[None, :], both, mask=mask[:, None])
