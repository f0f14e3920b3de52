"""Packing one token whose heads and channels share one pair: a decode step of one scale a tensor.

In torch (tensor_append.py) a side took some twenty-five launches a layer, 8.7 to 13.8 ms a token of
an 8B model. One program of one sequence sees a whole token, so that it can be one launch.
Arithmetic is triton_append.py's, over all heads as if they were one.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...planner.formats.code_tables import planes
from ..cache.layer_state import LayerState, SideState
from ..cache.quantize import clip_margin
from .formats import levels_of, table_kind
from .triton_codes import encoded, pair_of


@triton.jit
def _store_bits(VALUES, codes, to, due, BITS: tl.constexpr, CHANNELS: tl.constexpr,
                DIM: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    # `to`: [WIDE / per] addresses of each byte's row, whose channel 0 it is.
    per: tl.constexpr = 8 // BITS
    codes = tl.reshape(codes & (2**BITS - 1), [WIDE // per, per])
    codes = codes << (tl.arange(0, per) * BITS)[None, :]
    first = tl.arange(0, WIDE // per) * per
    tl.store(VALUES + to + first % DIM * BITS // 8, tl.sum(codes, 1).to(tl.uint8),
             mask=(first < CHANNELS) & due)  # fmt: skip


@triton.jit
def pack_token(X, RESIDUAL, VALUES, PAIRS, CLOCK, STARTS, LEVELS, x_batch, x_head, capacity,
               residual_rows, sinks, buffered, row_bytes, margin,
               BITS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
               WAITED: tl.constexpr, MAIN: tl.constexpr, TABLE: tl.constexpr,
               CLIPS: tl.constexpr, PADDED: tl.constexpr):  # fmt: skip
    """Pack what the append of one token [B, H, 1, D] makes due, a program a sequence."""
    total = tl.load(CLOCK)
    due = total > sinks + buffered
    place = tl.maximum(total - 1 - sinks - buffered, 0)  # after the sinks
    batch = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDE)
    real = at < HEADS * DIM
    head, channel = at // DIM, at % DIM
    if WAITED:
        row = ((batch * HEADS + head) * residual_rows + place % residual_rows) * DIM
        held = tl.load(RESIDUAL + row + channel, mask=real & due, other=0.0)
        x = held.to(tl.float32)
    else:
        x = tl.load(X + batch * x_batch + head * x_head + channel, mask=real & due, other=0.0)
        x = x.to(tl.float32)
    low = tl.min(tl.where(real, x, float("inf")), 0)
    high = tl.max(tl.where(real, x, float("-inf")), 0)
    if PADDED:  # a token of padding moves no range
        seen = place + sinks >= tl.load(STARTS + batch)
        low, high = tl.where(seen, low, 0.0), tl.where(seen, high, 0.0)
    offset, scale = pair_of(low, high, margin, BITS, TABLE, CLIPS)
    codes = encoded(x, offset, scale, LEVELS, BITS, TABLE)
    slot = place % capacity
    MAIN_BYTES: tl.constexpr = DIM * MAIN // 8
    per: tl.constexpr = 8 // MAIN
    over = tl.arange(0, WIDE // per) * per // DIM
    to = ((batch * HEADS + over) * capacity + slot) * row_bytes
    _store_bits(VALUES, codes, to, due, MAIN, HEADS * DIM, DIM, WIDE)
    if BITS > MAIN:
        REST: tl.constexpr = BITS - MAIN
        rest: tl.constexpr = 8 // REST
        over = tl.arange(0, WIDE // rest) * rest // DIM
        to = ((batch * HEADS + over) * capacity + slot) * row_bytes + MAIN_BYTES
        _store_bits(VALUES, codes >> MAIN, to, due, REST, HEADS * DIM, DIM, WIDE)
    word = offset.to(tl.int16, bitcast=True).to(tl.int32) << 16
    word = word | (scale.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF)
    tl.store(PAIRS + batch * capacity + slot, word, mask=due)


def launch(side: SideState, x: Tensor, state: LayerState) -> None:
    """Pack what one token x [B, H, 1, D], which the clock already counts, makes due."""
    form = side.form
    batch, heads, _, dim = x.shape
    assert side.scale is not None  # quantized sides have pairs
    residual = x if side.residual is None else side.residual
    wide = triton.next_power_of_2(heads * dim)
    pack_token[(batch,)](
        x, residual, side.values, side.scale.view(torch.int32),
        state.clock.device, state.clock.starts, levels_of(side), x.stride(0), x.stride(1),
        side.values.shape[2], residual.shape[2], form.sinks, form.buffered, side.values.shape[3],
        clip_margin(form), BITS=form.bits, HEADS=heads, DIM=dim, WIDE=wide,
        WAITED=side.residual is not None, MAIN=planes(form.bits)[0], TABLE=table_kind(side),
        CLIPS=form.clip < 100, PADDED=state.clock.padded,
        num_warps=max(1, min(8, wide // 256)),
        enable_fp_fusion=False,  # a fused multiply-add would round ties unlike the reference
    )  # fmt: skip
