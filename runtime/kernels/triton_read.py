"""Reading packed keys and values back in Triton: one tile of positions, from wherever they lie.

`read_tile` is the inverse of triton_append for every format.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...planner.formats.code_tables import planes
from ...planner.formats.configuration import Granularity
from ..cache.layer_state import SideState
from .formats import levels_of, pairs_of, table_kind


@triton.jit
def read_tile(position, valid, VALUES, PAIRS, RESIDUAL, SINKS, head, heads, capacity,
              residual_rows, sinks, buffered, total, MORE, LEVELS,
              BITS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
              KIND: tl.constexpr, WORDS: tl.constexpr, HELD: tl.constexpr,
              FIRST: tl.constexpr, EXTRA: tl.constexpr, TABLE: tl.constexpr):  # fmt: skip
    """float32 [len(position), WORDS * 32 / BITS] of one head; zero where not `valid` or past DIM.

    BITS are those of the codes' first part, EXTRA of their second (packing.py), whose elements of
    MORE hold as many codes as a word of VALUES. TABLE: 1 for e4m3, 2 for LEVELS; 3 and 4 for blocks
    of e2m1, whose PAIRS are bytes and whose LEVELS, of 3, a scale a head.

    WORDS is a power of two of 32-bit words that covers a row. KIND 0: pairs per token (or
    block); 1: per channel; 2: per tensor. HELD: a residual exists; FIRST: sinks exist.
    """
    per: tl.constexpr = 32 // BITS
    word = tl.arange(0, WORDS)
    if BITS == 16:
        flat = tl.arange(0, WORDS * per)
        slot = (head * capacity + position % capacity)[:, None]
        inside = valid[:, None] & (flat < DIM)[None, :]
        x = tl.load(VALUES + slot * DIM + flat[None, :], mask=inside, other=0.0).to(tl.float32)
    else:
        row = position - sinks
        end = tl.maximum(total - sinks - buffered, 0) // BLOCK * BLOCK
        packed = valid & (row >= 0) & (row < end)
        ring = row % capacity
        slot = (head * capacity + ring)[:, None]
        inside = packed[:, None] & (word * per < DIM)[None, :]
        row_words: tl.constexpr = DIM * (BITS + EXTRA) // 32
        codes = tl.load(VALUES + slot * row_words + word[None, :], mask=inside, other=0)
        shifts = tl.arange(0, per) * BITS
        codes = (codes[:, :, None] >> shifts[None, None, :]) & (2**BITS - 1)
        if EXTRA > 0:
            size: tl.constexpr = per * EXTRA  # bits of an element of MORE: 8 or 16
            at = slot * (row_words * 32 // size) + DIM * BITS // size + word[None, :]
            more = tl.load(MORE + at, mask=inside, other=0).to(tl.int32)
            ups = tl.arange(0, per) * EXTRA
            codes |= ((more[:, :, None] >> ups[None, None, :]) & (2**EXTRA - 1)) << BITS
        tile = head * (capacity // BLOCK) + ring // BLOCK
        if KIND == 1:
            channel = word[:, None] * per + tl.arange(0, per)[None, :]
            at = tile[:, None, None] * DIM + channel[None, :, :]
            real = packed[:, None, None] & (channel < DIM)[None, :, :]
            pairs = tl.load(PAIRS + at, mask=real, other=0)
        elif KIND == 2:
            at = ((head // heads) * capacity + ring)[:, None] + word[None, :] * 0
            pairs = tl.load(PAIRS + at, mask=inside, other=0)[:, :, None]
        else:
            groups: tl.constexpr = (DIM + WIDTH - 1) // WIDTH
            at = tile[:, None] * groups + (word * per // WIDTH)[None, :]
            pairs = tl.load(PAIRS + at, mask=inside, other=0)[:, :, None]
        if TABLE > 2:
            byte = pairs.to(tl.int32)
            if TABLE == 3:
                half = (byte << 7).to(tl.int16).to(tl.float16, bitcast=True)
                scale = half.to(tl.float32) * 256.0 * tl.load(LEVELS + head)
            else:
                scale = (byte << 23).to(tl.float32, bitcast=True)
            half = ((codes & 7) << 9) | ((codes & 8) << 12)
            level = half.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) * 16384.0
            x = level * scale
        else:
            scale = (pairs & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
            offset = (pairs >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
            if TABLE == 1:
                half = ((codes & 127) << 7) | ((codes & 128) << 8)
                level = half.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
            elif TABLE == 2:
                level = tl.load(LEVELS + codes)
            else:
                level = codes.to(tl.float32)
            x = level * scale + offset
        x = tl.reshape(x, [position.shape[0], WORDS * per])
        flat = tl.arange(0, WORDS * per)
        if HELD:
            held = valid & (row >= end)
            at = (head * residual_rows + row % residual_rows)[:, None] * DIM + flat[None, :]
            y = tl.load(RESIDUAL + at, mask=held[:, None] & (flat < DIM)[None, :], other=0.0)
            x = tl.where(held[:, None], y.to(tl.float32), x)
        if FIRST:
            first = valid & (row < 0)
            at = (head * sinks + position)[:, None] * DIM + flat[None, :]
            y = tl.load(SINKS + at, mask=first[:, None] & (flat < DIM)[None, :], other=0.0)
            x = tl.where(first[:, None], y.to(tl.float32), x)
    return x


class Source(NamedTuple):
    """One side's buffers and numbers, in the order the kernels take them."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor]
    numbers: tuple[int, int, int, int]
    codes: tuple[Tensor, Tensor]
    """The codes' second parts, and their levels."""
    constants: tuple[int, int, int, int, int, int, bool, bool, int, int]


def source(side: SideState) -> Source:
    """`side` as `read_tile` takes it; absent buffers are stood in for by `values`."""
    form, dim, values = side.form, side.dim, side.values
    kinds = {Granularity.PER_CHANNEL: 1, Granularity.PER_TENSOR: 2}
    kind = kinds.get(form.granularity, 0) if form.quantized else 0
    width = form.group_width(dim) if kind == 0 else dim
    pairs = values if side.scale is None else pairs_of(side)
    main, extra = (*planes(form.bits), 0)[:2]
    more = values
    if form.quantized:
        values = values.view(torch.int32)
        more = more.view(torch.int16) if 32 // main * extra == 16 else more
    words = triton.next_power_of_2(-(-dim * main // 32))
    residual = values if side.residual is None else side.residual
    sinks = values if side.sinks is None else side.sinks
    return Source(
        (values, pairs, residual, sinks),
        (side.values.shape[2], residual.shape[2], side.sink_tokens, form.buffered),
        (more, levels_of(side)),
        (main, dim, width, form.block, kind, words,
         side.residual is not None, side.sinks is not None, extra, table_kind(side)),
    )  # fmt: skip


def supports(side: SideState) -> bool:
    """Rows of whole 32-bit words whose codes share a group within a word."""
    form = side.form
    if not form.quantized:
        return True
    whole = side.dim * planes(form.bits)[0] % 32 == 0
    return whole and side.dim * form.bits % 32 == 0
