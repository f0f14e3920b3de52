"""Triton kernels for the experts of a chunk: all of a layer's in one product, without the host.

(token, expert) pairs are sorted by expert; a program takes a tile of one expert's pairs and a
block of columns, gathers the pairs' rows of x, and multiplies them with that expert's matrix as it
is stored: 4 bits, 8 bits or 16. Which pairs a tile holds follows from how many each expert has,
which every program works out for itself, so nothing is read on the host and a graph may hold it.

Inputs of packed matrices are taken in the order that their words have them (`ordered` in
products.py puts x into it), so that one block of words becomes one operand of the tensor cores.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from ..kernels import zero_points
from ..layout import BIAS8, BLOCK4

EXACT = 8388608
"""2^23: as the exponent of a float, it leaves the mantissa's low bits to whole numbers."""


@triton.jit
def _tile(ends, E, number, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr):
    """Of tile `number`: its expert (E where there is no such tile), its first pair, its end."""
    experts = tl.arange(0, BLOCK_E)
    end = tl.load(ends + experts, mask=experts < E, other=0)
    start = tl.load(ends + experts - 1, mask=(experts > 0) & (experts < E), other=0)
    count = tl.where(experts < E, end - start, 0)
    tiles = (count + BLOCK_M - 1) // BLOCK_M
    tiles_end = tl.cumsum(tiles, 0)
    expert = tl.sum(((tiles_end <= number) & (experts < E)).to(tl.int32), 0)
    here = experts == expert
    first = tl.sum(tl.where(here, start + (number - tiles_end + tiles) * BLOCK_M, 0), 0)
    return expert, first, tl.sum(tl.where(here, end, 0), 0)


@triton.jit
def _floats(codes):
    """Whole numbers below 2^23 as fp32 + 2^23, by their bits: a conversion takes four times as
    long."""
    return (codes | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def grouped(x, pairs, ends, words, zeros, scales, bias, y, E, K, N, x_row,
            words_expert, words_row, words_column, zeros_expert, zeros_row,
            scales_expert, scales_row, bias_expert,
            BITS: tl.constexpr, GROUP: tl.constexpr, EVERY: tl.constexpr,
            BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
            EVEN: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr, STAGES: tl.constexpr,
            BLOCK: tl.constexpr = BLOCK4, BIAS: tl.constexpr = BIAS8,
            FLOOR: tl.constexpr = EXACT):  # fmt: skip
    """y[p] = x[p // EVERY] @ W_e + bias_e for the pairs p of every expert e.

    x [.., K], rows `x_row` apart, in the words' order; pairs: the numbers of the pairs, sorted by
    expert; ends int32 [E]: where each expert's end. BITS 16: `words` is W itself [E, K, N] by its
    strides. EVEN: K is a multiple of BLOCK inputs.
    """
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    expert, first, end = _tile(ends, E, tl.program_id(1), BLOCK_E, BLOCK_M)
    if expert >= E:
        return
    at = first + tl.arange(0, BLOCK_M)
    pair = tl.load(pairs + tl.minimum(at, end - 1))
    mask = columns < N
    member = expert.to(tl.int64)
    words += member * words_expert
    inner = tl.arange(0, BLOCK)
    x_at = x + (pair // EVERY).to(tl.int64)[:, None] * x_row + inner[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    WORDS: tl.constexpr = BLOCK * BITS // 32 if BITS < 16 else BLOCK
    lanes = tl.arange(0, WORDS)
    w_at = words + lanes[:, None] * words_row + columns[None, :] * words_column
    for number in tl.range(0, tl.cdiv(K, BLOCK), num_stages=STAGES):
        if EVEN:
            rows = tl.load(x_at + number * BLOCK)
            packed = tl.load(w_at + number * WORDS * words_row, mask=mask[None, :], other=0)
        else:
            inside = number * BLOCK + inner < K
            rows = tl.load(x_at + number * BLOCK, mask=inside[None, :], other=0.0)
            held = number * WORDS + lanes < K * WORDS // BLOCK
            packed = tl.load(w_at + number * WORDS * words_row,
                             mask=held[:, None] & mask[None, :], other=0)  # fmt: skip
        if BITS == 16:
            weights = packed.to(DOT)
        else:
            EACH: tl.constexpr = 32 // BITS
            shifts = (tl.arange(0, EACH) * BITS)[None, :, None]
            codes = _floats((packed[:, None, :] >> shifts) & ((1 << BITS) - 1))
            if BITS == 8:
                weights = (codes - (FLOOR + BIAS)).to(DOT)
            elif GROUP == BLOCK:
                scale = tl.load(scales + member * scales_expert + number * scales_row + columns,
                                mask=mask, other=0.0).to(tl.float32)  # fmt: skip
                zero = zero_points(zeros + member * zeros_expert + number * zeros_row, columns,
                                   mask)  # fmt: skip
                weights = ((codes - (zero + FLOOR)[None, None, :]) * scale[None, None, :]).to(DOT)
            else:
                group = number * (BLOCK // GROUP) + tl.arange(0, EACH) // 2 * 32 // GROUP
                scale = tl.load(
                    scales + member * scales_expert + group[:, None] * scales_row
                    + columns[None, :], mask=mask[None, :], other=0.0,
                ).to(tl.float32)  # fmt: skip
                zero = tl.load(
                    zeros + member * zeros_expert + group[:, None] * zeros_row
                    + (columns // 8)[None, :], mask=mask[None, :], other=0,
                )  # fmt: skip
                zero = ((zero >> (columns % 8 * 4)[None, :]) & 15).to(tl.float32)
                weights = ((codes - (zero + FLOOR)[None, :, :]) * scale[None, :, :]).to(DOT)
            weights = tl.reshape(weights, [BLOCK, BLOCK_N])
        total = tl.dot(rows.to(DOT), weights, total, input_precision="ieee")
    if BITS == 8:
        scale = tl.load(scales + member * scales_expert + columns, mask=mask, other=0.0)
        total *= scale.to(tl.float32)[None, :]
    if HAS_BIAS:
        added = tl.load(bias + member * bias_expert + columns, mask=mask, other=0.0)
        total += added.to(tl.float32)[None, :]
    tl.store(y + pair.to(tl.int64)[:, None] * N + columns[None, :], total.to(y.dtype.element_ty),
             mask=(at < end)[:, None] & mask[None, :])  # fmt: skip


@triton.jit
def combine(y, weights, out, H, TOP_K: tl.constexpr, BLOCK_H: tl.constexpr):
    """out[t] = sum over k of weights[t, k] * y[t TOP_K + k], in fp32; y [pairs, H], out [t, H]."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    mask = columns < H
    total = tl.zeros([BLOCK_H], tl.float32)
    for k in tl.static_range(TOP_K):
        weight = tl.load(weights + token * TOP_K + k).to(tl.float32)
        row = tl.load(y + (token * TOP_K + k) * H + columns, mask=mask, other=0.0)
        total += weight * row.to(tl.float32)
    tl.store(out + token * H + columns, total.to(out.dtype.element_ty), mask=mask)
