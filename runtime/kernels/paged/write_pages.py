"""Quantize new keys and values into their slots of pages, in Triton: one launch for both sides.

Arithmetic is page_format.py's, operation by operation. The rotation is a product with a matrix of
ones and minus ones, exact up to the float32 sum, rounded once.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from .page_format import PageFormat, hadamard, signs

_TOKENS = 16  # tokens a program takes: the least a matrix product does


@triton.jit
def _round_away(x):
    return tl.where(x >= 0, (x + 0.5).to(tl.int32), (x - 0.5).to(tl.int32))


@triton.jit
def turn(x, MATRIX, at, DIM: tl.constexpr, EXACT: tl.constexpr):
    """x [rows, DIM] of the model's type times the Hadamard matrix, float32."""
    matrix = tl.load(MATRIX + at[:, None] * DIM + at[None, :])
    if EXACT:
        return tl.dot(x.to(tl.float32), matrix.to(tl.float32), input_precision="ieee")
    return tl.dot(x, matrix)


@triton.jit(do_not_specialize=("n",))  # one kernel, whatever a step brings
def _write(K, V, PAGES, WORDS, SLOTS, MATRIX, SIGNS, n, k_token, k_head, v_token, v_head,
           page_stride, head_stride, PAGE: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
           SIDE: tl.constexpr, BITS: tl.constexpr, TOKENS: tl.constexpr,
           EXACT: tl.constexpr):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1).to(tl.int64)
    side = tl.program_id(2)
    slot = tl.load(SLOTS + token, mask=token < n, other=-1).to(tl.int64)
    at = tl.arange(0, WIDE)
    real = (at < DIM)[None, :]
    inside = (slot >= 0)[:, None] & real
    far = token.to(tl.int64)[:, None]
    if side == 0:
        x = tl.load(K + far * k_token + head * k_head + at[None, :], mask=inside, other=0.0)
    else:
        x = tl.load(V + far * v_token + head * v_head + at[None, :], mask=inside, other=0.0)
    row = slot // PAGE * page_stride + head * head_stride + slot % PAGE * (2 * SIDE) + side * SIDE
    if BITS == 4:
        turned = (x.to(tl.float32) * tl.load(SIGNS + at)[None, :]).to(x.dtype)
        y = turn(turned, MATRIX, at, DIM, EXACT).to(x.dtype).to(tl.float32)
        low, high = tl.min(y, 1), tl.max(y, 1)
        scale = tl.maximum((high - low) / 15.0, 1e-6)
        zero = tl.clamp(_round_away(-low / scale).to(tl.float32), 0.0, 15.0)
        inverse = 1.0 / scale
        codes = _round_away(y * inverse[:, None] + zero[:, None]).to(tl.float32)
        codes = tl.clamp(codes, 0.0, 15.0).to(tl.int32)
        pairs = tl.reshape(codes, [TOKENS, WIDE // 2, 2]) << (tl.arange(0, 2) * 4)[None, None, :]
        byte = tl.arange(0, WIDE // 2)
        tl.store(PAGES + row[:, None] + byte[None, :], tl.sum(pairs, 2).to(tl.uint8),
                 mask=(slot >= 0)[:, None] & (byte < DIM // 2)[None, :])  # fmt: skip
        word = (scale.to(tl.int32, bitcast=True) & -16) | zero.to(tl.int32)
    else:
        y = x.to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(y), 1) / 127.0, 1e-6)
        y = y * (1.0 / scale)[:, None]
        y = tl.clamp(tl.where(y >= 0, y + 0.5, y - 0.5), -128.0, 127.0)
        tl.store(
            PAGES + row[:, None] + at[None, :], (y.to(tl.int32) & 255).to(tl.uint8), mask=inside
        )
        word = scale.to(tl.int32, bitcast=True)
    tl.store(WORDS + (row + SIDE - 4) // 4, word, mask=slot >= 0)


def write_pages(pages: Tensor, key: Tensor, value: Tensor, slots: Tensor, form: PageFormat) -> None:
    """Write tokens [>= n, heads, D] to the slots [n] of pages [pages, heads, page tokens, row].

    Channels are contiguous; a negative slot is left out. The launch may be captured in a graph.
    """
    n, heads = slots.shape[0], key.shape[1]
    matrix = hadamard(form.dim, key.dtype, key.device) if form.rotated else key
    wide = triton.next_power_of_2(form.dim)
    _write[(triton.cdiv(n, _TOKENS), heads, 2)](
        key, value, pages.view(torch.uint8), pages.view(torch.int32), slots, matrix,
        signs(form.dim, key.device), n, key.stride(0), key.stride(1), value.stride(0),
        value.stride(1), pages.stride(0), pages.stride(1), PAGE=pages.shape[2], DIM=form.dim,
        WIDE=wide, SIDE=form.side_bytes, BITS=form.bits, TOKENS=_TOKENS,
        EXACT=exact(key), num_warps=4,
    )  # fmt: skip


def exact(x: Tensor) -> bool:
    """Whether products are made in float32: for float32 inputs, and off the GPU, where Triton's
    interpreter cannot multiply bfloat16."""
    return x.dtype == torch.float32 or not x.is_cuda
