"""Quantize-and-append in Triton: keys or values of a chunk to codes and pairs, in place.

Positions come from the device counter, so the launches of one decode step can be captured in a
CUDA graph. Arithmetic is runtime/cache/quantize.py's, operation by operation, so the codes are
equal.

A program takes a tile of tokens of one head with all its channels, as [tokens, groups, width]:
a pair is shared along the width (per token), along the tokens (per channel), or both (per block).
What is packed by an append comes from the chunk, or from the residual buffer where it waited.
One pair a tensor is left to torch (tensor_append.py), but for single tokens (tensor_token.py).
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...planner.formats.code_tables import planes
from ...planner.formats.configuration import Granularity
from ..cache.layer_state import LayerState, SideState
from ..cache.quantize import clip_margin
from . import tensor_token
from .formats import levels_of, pairs_of, table_kind
from .tensor_append import pack_tensor
from .triton_codes import block_codes, block_scale, encoded, pair_of

_TOKENS = 16  # tokens a program packs where each has its own pair


@triton.jit
def _store_plane(VALUES, codes, slot, row_bytes, base, due, BITS: tl.constexpr, DIM: tl.constexpr,
                 WIDTH: tl.constexpr, WIDE: tl.constexpr, MANY: tl.constexpr,
                 TOKENS: tl.constexpr):  # fmt: skip
    # Codes of one byte lie side by side: shifted apart, their sum is the byte.
    per: tl.constexpr = 8 // BITS
    codes = (codes & (2**BITS - 1)).to(tl.int32)
    shifts = tl.arange(0, per) * BITS
    codes = tl.reshape(codes, [TOKENS, MANY * WIDE // per, per]) << shifts[None, None, :]
    first = tl.arange(0, MANY * WIDE // per) * per
    channel = first // WIDE * WIDTH + first % WIDE
    real = (first % WIDE < WIDTH) & (channel < DIM)
    tl.store(VALUES + slot[:, None] * row_bytes + base + (channel * BITS // 8)[None, :],
             tl.sum(codes, 2).to(tl.uint8), mask=due[:, None] & real[None, :])  # fmt: skip


@triton.jit
def _pack(X, RESIDUAL, VALUES, PAIRS, CLOCK, LEVELS, n, heads, x_batch, x_head, x_token,
          capacity, residual_rows, sinks, buffered, row_bytes, margin,
          BLOCK: tl.constexpr, BITS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
          GROUPS: tl.constexpr, WIDE: tl.constexpr, MANY: tl.constexpr, TOKENS: tl.constexpr,
          CHANNELS: tl.constexpr, WAITED: tl.constexpr, MAIN: tl.constexpr,
          TABLE: tl.constexpr, CLIPS: tl.constexpr):  # fmt: skip
    total = tl.load(CLOCK)
    before = total - n
    packed = tl.maximum(before - sinks - buffered, 0) // BLOCK * BLOCK
    end = tl.maximum(total - sinks - buffered, 0) // BLOCK * BLOCK
    row = packed + tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1).to(tl.int64)
    at = tl.arange(0, MANY * WIDE)
    channel = at // WIDE * WIDTH + at % WIDE
    real = (at % WIDE < WIDTH) & (channel < DIM)
    fresh = row + sinks >= before
    source = (head // heads) * x_batch + (head % heads) * x_head
    inside = ((row < end) & fresh)[:, None] & real[None, :]
    source += (row + sinks - before).to(tl.int64)[:, None] * x_token + channel[None, :]
    x = tl.load(X + source, mask=inside, other=0.0).to(tl.float32)
    if WAITED:
        waited = (head * residual_rows + row % residual_rows)[:, None] * DIM + channel[None, :]
        held = ((row < end) & (row + sinks < before))[:, None] & real[None, :]
        x += tl.load(RESIDUAL + waited, mask=held, other=0.0).to(tl.float32)
    x = tl.reshape(x, [TOKENS, MANY, WIDE])
    real3 = tl.reshape(tl.broadcast_to(real[None, :], [TOKENS, MANY * WIDE]), [TOKENS, MANY, WIDE])
    low = tl.where(real3, x, float("inf"))
    high = tl.where(real3, x, float("-inf"))
    if CHANNELS:
        low, high = tl.min(low, 0)[None, :, :], tl.max(high, 0)[None, :, :]
    else:
        low, high = tl.min(low, 2)[:, :, None], tl.max(high, 2)[:, :, None]
        if BLOCK > 1:
            low, high = tl.min(low, 0)[None, :, :], tl.max(high, 0)[None, :, :]
    if TABLE > 2:
        tensor = tl.load(LEVELS + head) if TABLE == 3 else 1.0
        word, share = block_scale(tl.maximum(high, -low), tensor, TABLE)
        codes = block_codes(x, share)
    else:
        offset, scale = pair_of(low, high, margin, BITS, TABLE, CLIPS)
        codes = encoded(x, offset, scale, LEVELS, BITS, TABLE)
        word = offset.to(tl.int16, bitcast=True).to(tl.int32) << 16
        word = word | (scale.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF)

    slot = head * capacity + row % capacity
    _store_plane(VALUES, codes, slot, row_bytes, 0, row < end, MAIN, DIM, WIDTH, WIDE, MANY, TOKENS)
    if BITS > MAIN:
        _store_plane(VALUES, codes >> MAIN, slot, row_bytes, DIM * MAIN // 8, row < end,
                     BITS - MAIN, DIM, WIDTH, WIDE, MANY, TOKENS)  # fmt: skip
    group = tl.arange(0, MANY)[None, :, None]
    if CHANNELS:
        within = tl.arange(0, WIDE)[None, None, :]
        channel3 = group * WIDTH + within
        block = head * (capacity // BLOCK) + (packed // BLOCK + tl.program_id(0)) % (
            capacity // BLOCK
        )
        some = packed + tl.program_id(0) * TOKENS < end
        tl.store(PAIRS + block * DIM + channel3, word,
                 mask=(within < WIDTH) & (channel3 < DIM) & some)  # fmt: skip
    elif BLOCK > 1:
        block = head * (capacity // BLOCK) + (packed // BLOCK + tl.program_id(0)) % (
            capacity // BLOCK
        )
        some = packed + tl.program_id(0) * TOKENS < end
        tl.store(PAIRS + block * GROUPS + group, word, mask=(group < GROUPS) & some)
    else:
        tl.store(PAIRS + slot[:, None, None] * GROUPS + group, word.to(PAIRS.dtype.element_ty),
                 mask=(row < end)[:, None, None] & (group < GROUPS))  # fmt: skip


@triton.jit
def _hold(X, TO, CLOCK, n, heads, x_batch, x_head, x_token, rows, first, sinks, buffered,
          BLOCK: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr,
          KIND: tl.constexpr):  # fmt: skip
    """Tokens that stay in 16 bits. KIND 0: all of them; 1: the residual; 2: the sinks."""
    total = tl.load(CLOCK)
    token = first + tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1).to(tl.int64)
    position = total - n + token
    keep = token < n
    slot = position % rows
    if KIND == 1:
        end = tl.maximum(total - sinks - buffered, 0) // BLOCK * BLOCK
        keep = keep & (position - sinks >= end)
        slot = (position - sinks) % rows
    if KIND == 2:
        token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS) - (total - n)
        slot = token + total - n
        keep = (token >= 0) & (token < n) & (slot < rows)
    at = tl.arange(0, WIDE)
    mask = keep[:, None] & (at < DIM)[None, :]
    source = (head // heads) * x_batch + (head % heads) * x_head
    x = tl.load(
        X + source + token.to(tl.int64)[:, None] * x_token + at[None, :], mask=mask, other=0.0
    )
    to = (head * rows + slot)[:, None] * DIM + at[None, :]
    tl.store(TO + to, x.to(TO.dtype.element_ty), mask=mask)


def supports(side: SideState) -> bool:
    """Every format with rows of whole 32-bit words."""
    form = side.form
    if not form.quantized:
        return True
    width = form.group_width(side.dim)
    return side.dim * form.bits % 32 == 0 and all(
        width * part % 8 == 0 for part in planes(form.bits)
    )


def append(state: LayerState, key: Tensor, value: Tensor) -> None:
    """Append [B, H, n, D] that the clock already counts; channels contiguous."""
    for side, x in ((state.key, key), (state.value, value)):
        x = x if x.stride(3) == 1 else x.contiguous()
        if not side.form.quantized:
            _launch_hold(side, x, state, side.values, 0)
            continue
        if x.dtype == torch.float32:
            x = x.to(torch.bfloat16)
        if side.form.granularity is Granularity.PER_TENSOR:
            pack = tensor_token.launch if x.shape[2] == 1 else pack_tensor
            if side.values.shape[2]:  # else all that fits stays in 16 bits
                pack(side, x, state)
        else:
            _launch_pack(side, x, state)
        if side.residual is not None:
            _launch_hold(side, x, state, side.residual, 1)
        if side.sinks is not None:
            _launch_hold(side, x, state, side.sinks, 2)


def _launch_pack(side: SideState, x: Tensor, state: LayerState) -> None:
    form, dim = side.form, side.dim
    batch, heads, n, _ = x.shape
    channels = form.granularity is Granularity.PER_CHANNEL
    width = dim if channels else form.group_width(dim)
    groups = -(-dim // width)
    tokens = form.block if form.block > 1 else min(_TOKENS, triton.next_power_of_2(n))
    tiles = -(-n // tokens) + (1 if form.block > 1 else 0)
    residual = x if side.residual is None else side.residual
    wide, many = triton.next_power_of_2(width), triton.next_power_of_2(groups)
    _pack[(tiles, batch * heads)](
        x, residual, side.values, pairs_of(side), state.clock.device,
        levels_of(side), n, heads, *x.stride()[:3], side.values.shape[2], residual.shape[2],
        form.sinks, form.buffered, side.values.shape[3], clip_margin(form),
        BLOCK=form.block, BITS=form.bits, DIM=dim, WIDTH=width, GROUPS=groups, WIDE=wide,
        MANY=many, TOKENS=tokens, CHANNELS=channels, WAITED=side.residual is not None,
        MAIN=planes(form.bits)[0], TABLE=table_kind(side), CLIPS=form.clip < 100,
        num_warps=max(1, min(8, tokens * wide * many // 1024)),
        enable_fp_fusion=False,  # a fused multiply-add would round ties unlike the reference
    )  # fmt: skip


def _launch_hold(side: SideState, x: Tensor, state: LayerState, to: Tensor, kind: int) -> None:
    form = side.form
    batch, heads, n, dim = x.shape
    rows = to.shape[2]
    count = rows if kind == 2 else min(n, rows)
    tokens = min(_TOKENS, triton.next_power_of_2(count))
    _hold[(-(-count // tokens), batch * heads)](
        x, to, state.clock.device, n, heads, *x.stride()[:3], rows, n - count, form.sinks,
        form.buffered, BLOCK=form.block, DIM=dim, WIDE=triton.next_power_of_2(dim),
        TOKENS=tokens, KIND=kind, num_warps=2,
    )  # fmt: skip
