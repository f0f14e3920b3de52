"""For prompts: pages back to 16 bits, and rows rotated, in Triton.

A prompt's attention is made of large products, which a library's dense kernel does best. So its
sequences are staged: each page once a layer, as dense keys and values in the rotated space, where
queries are turned too; the result is turned back.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from .page_format import PageFormat, hadamard, signs
from .write_pages import exact, turn

PADDING = 256  # rows of zeros after the last sequence: a dense kernel's tile reaches beyond it
_TOKENS = 32  # tokens a program stages
_ROWS = 64  # rows a program rotates


@triton.jit(do_not_specialize=("table_stride",))
def _stage(PAGES, WORDS, TABLE, LENGTHS, STARTS, K, V, heads, page_stride, head_stride,
           table_stride, PAGE: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
           SIDE: tl.constexpr, BITS: tl.constexpr, TOKENS: tl.constexpr,
           AFTER: tl.constexpr):  # fmt: skip
    sequence = tl.program_id(2)
    length = tl.load(LENGTHS + sequence)
    end = length + tl.where(sequence == tl.num_programs(2) - 1, AFTER, 0)
    first = tl.program_id(0) * TOKENS
    if first >= end:
        return
    token = first + tl.arange(0, TOKENS)
    head = tl.program_id(1).to(tl.int64)
    there = token < length
    page = tl.load(TABLE + sequence * table_stride + token // PAGE, mask=there, other=0)
    row = page.to(tl.int64) * page_stride + head * head_stride + token % PAGE * (2 * SIDE)
    at = tl.arange(0, WIDE)
    inside = there[:, None] & (at < DIM)[None, :]
    written = (token < end)[:, None] & (at < DIM)[None, :]
    to = (tl.load(STARTS + sequence) + token).to(tl.int64) * heads + head
    for side in tl.static_range(2):
        here = row + side * SIDE
        word = tl.load(WORDS + (here + SIDE - 4) // 4, mask=there, other=0)
        byte = tl.load(PAGES + here[:, None] + (at * BITS // 8)[None, :], mask=inside, other=0)
        if BITS == 4:
            code = (byte.to(tl.int32) >> (at % 2 * 4)[None, :]) & 15
            scale = (word & -16).to(tl.float32, bitcast=True)
            x = (code - (word & 15)[:, None]).to(tl.float32) * scale[:, None]
        else:
            x = byte.to(tl.int8, bitcast=True).to(tl.float32)
            x *= word.to(tl.float32, bitcast=True)[:, None]
        OUT = K if side == 0 else V
        tl.store(OUT + to[:, None] * DIM + at[None, :], x.to(OUT.dtype.element_ty), mask=written)


@triton.jit(do_not_specialize=("rows",))
def _rotate(X, OUT, MATRIX, SIGNS, rows, heads, x_token, x_head, out_token, out_head,
            DIM: tl.constexpr, BACK: tl.constexpr, ROWS: tl.constexpr,
            EXACT: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    token, head = row // heads, row % heads
    at = tl.arange(0, DIM)
    inside = (row < rows)[:, None]
    x = tl.load(
        X + (token * x_token + head * x_head)[:, None] + at[None, :], mask=inside, other=0.0
    )
    sign = tl.load(SIGNS + at)[None, :]
    if BACK:
        y = turn(x, MATRIX, at, DIM, EXACT) * sign / DIM
    else:
        y = turn((x.to(tl.float32) * sign).to(x.dtype), MATRIX, at, DIM, EXACT)
    to = (token * out_token + head * out_head)[:, None] + at[None, :]
    tl.store(OUT + to, y.to(OUT.dtype.element_ty), mask=inside)


def stage_pages(
    pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    starts: Tensor,
    key: Tensor,
    value: Tensor,
    longest: int,
    form: PageFormat,
) -> None:
    """Sequences' pages to rows `starts[i]` on of `key` and `value` [tokens, heads, D], contiguous,
    then PADDING rows of zeros.

    `table` [sequences, pages], `lengths` and `starts` [sequences] are int32 on the device;
    `longest` is no less than any length.
    """
    heads = pages.shape[1]
    _stage[(triton.cdiv(longest + PADDING, _TOKENS), heads, lengths.shape[0])](
        pages.view(torch.uint8), pages.view(torch.int32), table, lengths, starts, key, value, heads,
        pages.stride(0), pages.stride(1), table.stride(0), PAGE=pages.shape[2], DIM=form.dim,
        WIDE=triton.next_power_of_2(form.dim), SIDE=form.side_bytes, BITS=form.bits,
        TOKENS=_TOKENS, AFTER=PADDING, num_warps=4,
    )  # fmt: skip


def rotate_rows(x: Tensor, out: Tensor, *, back: bool = False) -> None:
    """Rows [n, heads, D] with contiguous channels, rotated into `out`; `back`: the inverse."""
    n, heads, dim = x.shape
    _rotate[(triton.cdiv(n * heads, _ROWS),)](
        x, out, hadamard(dim, x.dtype, x.device), signs(dim, x.device), n * heads, heads,
        x.stride(0), x.stride(1), out.stride(0), out.stride(1), DIM=dim, BACK=back, ROWS=_ROWS,
        EXACT=exact(x), num_warps=4,
    )  # fmt: skip
