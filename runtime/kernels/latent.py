"""Latent attention on a GPU: one kernel over packed latents, and chunks over expanded pieces.

`attend` is decoding (and whatever chunks do not take): a program reads a tile of packed latents
once, as keys and as values, for 16 query heads. `expanded` is a chunk of one sequence: pieces of
the latents are written out in 16 bits, expanded by the layer's own matrix, attended to by a
library's fused attention and merged by their log-sum-exps, so that no more than one piece is ever
expanded. Sizes are planner/memory/activation/workspace.py's. The truth is runtime/latent.py.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import os
from typing import Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...planner.memory.activation.workspace import (
    LATENT_KEYS,
    LATENT_ROWS,
    latent_piece,
    latent_splits,
)
from ..cache.layer_state import LayerState, SideState
from .stages import deepest
from .triton_attend import merge
from .triton_read import read_tile, source

WARPS, STAGES = 8, 2  # with fewer warps, or longer tiles, 8-bit latents of 512 channels spill
PLANNED_QUERIES, PLANNED_KEYS = 256, 1024  # of whose multiples cuDNN makes few enough plans
_efficient_attention = torch.ops.aten._scaled_dot_product_efficient_attention.default
_library_attention = torch.ops.aten._scaled_dot_product_cudnn_attention.default
_without_plan: set[tuple[int, int, torch.dtype]] = set()


@triton.jit
def attend_tile(Q, T, OUT, LSE, CLOCK, STARTS,
                KV, KP, KR, KS, k_capacity, k_rows, k_sinks, k_buffered, KM, KL,
                VV, VP, VR, VS, v_capacity, v_rows, v_sinks, v_buffered, VM, VL,
                n, splits, scale, GROUP: tl.constexpr, WIDE_DOT: tl.constexpr,
                K_BITS: tl.constexpr, K_DIM: tl.constexpr, K_WIDTH: tl.constexpr,
                K_BLOCK: tl.constexpr, K_KIND: tl.constexpr, K_WORDS: tl.constexpr,
                K_HELD: tl.constexpr, K_FIRST: tl.constexpr,
                K_EXTRA: tl.constexpr, K_TABLE: tl.constexpr,
                V_BITS: tl.constexpr, V_DIM: tl.constexpr, V_WIDTH: tl.constexpr,
                V_BLOCK: tl.constexpr, V_KIND: tl.constexpr, V_WORDS: tl.constexpr,
                V_HELD: tl.constexpr, V_FIRST: tl.constexpr,
                V_EXTRA: tl.constexpr, V_TABLE: tl.constexpr,
                ROWS: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    """Rows are (query, head); OUT float32 [splits, B, n * GROUP, K_DIM], LSE log2."""
    total = tl.load(CLOCK)
    batch = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    asks = total - n + row // GROUP
    k_wide: tl.constexpr = K_WORDS * (32 // K_BITS)
    v_wide: tl.constexpr = V_WORDS * (32 // V_BITS)
    channel, narrow = tl.arange(0, k_wide), tl.arange(0, v_wide)
    place = ((batch * GROUP + row % GROUP) * n + row // GROUP)[:, None]
    there = (row < n * GROUP)[:, None]
    q = tl.load(Q + place * K_DIM + channel[None, :], mask=there & (channel < K_DIM)[None, :],
                other=0.0)  # fmt: skip
    t = tl.load(T + place * V_DIM + narrow[None, :], mask=there & (narrow < V_DIM)[None, :],
                other=0.0)  # fmt: skip
    first = tl.load(STARTS + batch)
    last = tl.minimum(total, total - n + (tl.program_id(0) * ROWS + ROWS - 1) // GROUP + 1)
    share = tl.cdiv(tl.cdiv(tl.maximum(last - first, 0), splits), KEYS) * KEYS
    first += split * share
    last = tl.minimum(last, first + share)
    top = tl.full([ROWS], -1e30, tl.float32)
    norm = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, k_wide], tl.float32)
    for at in range(first, last, KEYS):
        position = at + tl.arange(0, KEYS)
        valid = position < last
        c = read_tile(position, valid, KV, KP, KR, KS, batch, 1, k_capacity, k_rows, k_sinks,
                      k_buffered, total, KM, KL, K_BITS, K_DIM, K_WIDTH, K_BLOCK, K_KIND, K_WORDS,
                      K_HELD, K_FIRST, K_EXTRA, K_TABLE)  # fmt: skip
        r = read_tile(position, valid, VV, VP, VR, VS, batch, 1, v_capacity, v_rows, v_sinks,
                      v_buffered, total, VM, VL, V_BITS, V_DIM, V_WIDTH, V_BLOCK, V_KIND, V_WORDS,
                      V_HELD, V_FIRST, V_EXTRA, V_TABLE)  # fmt: skip
        if WIDE_DOT:
            s = tl.dot(q.to(tl.float32), tl.trans(c), input_precision="ieee")
            s += tl.dot(t.to(tl.float32), tl.trans(r), input_precision="ieee")
        else:
            c = c.to(q.dtype)
            s = tl.dot(q, tl.trans(c)) + tl.dot(t, tl.trans(r.to(q.dtype)))
        s = s * (scale * 1.4426950408889634)
        s = tl.where(valid[None, :] & (position[None, :] <= asks[:, None]), s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        keep = tl.exp2(top - new)
        norm = norm * keep + tl.sum(p, 1)
        mixed = mixed * keep[:, None]
        if WIDE_DOT:
            mixed += tl.dot(p, c, input_precision="ieee")
        else:
            mixed += tl.dot(p.to(q.dtype), c)
        top = new
    mixed = mixed / tl.where(norm > 0, norm, 1.0)[:, None]
    lse = tl.where(norm > 0, top + tl.log2(tl.where(norm > 0, norm, 1.0)), float("-inf"))
    row_at = (split * tl.num_programs(1) + batch) * (n * GROUP) + row
    tl.store(OUT + row_at[:, None] * K_DIM + channel[None, :], mixed,
             mask=there & (channel < K_DIM)[None, :])  # fmt: skip
    tl.store(LSE + row_at, lse, mask=row < n * GROUP)


@triton.jit
def write_tile(OUT, CLOCK, first, count, VALUES, PAIRS, RESIDUAL, SINKS, capacity, residual_rows,
               sinks, buffered, MORE, LEVELS, BITS: tl.constexpr, DIM: tl.constexpr,
               WIDTH: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr, WORDS: tl.constexpr,
               HELD: tl.constexpr, FIRST: tl.constexpr, EXTRA: tl.constexpr, TABLE: tl.constexpr,
               KEYS: tl.constexpr):  # fmt: skip
    """Positions [first, first + count) of one sequence, dequantized: OUT [count, DIM]."""
    row = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    valid = row < count
    x = read_tile(first + row, valid, VALUES, PAIRS, RESIDUAL, SINKS, 0, 1, capacity,
                  residual_rows, sinks, buffered, tl.load(CLOCK), MORE, LEVELS, BITS, DIM, WIDTH,
                  BLOCK, KIND, WORDS, HELD, FIRST, EXTRA, TABLE)  # fmt: skip
    channel = tl.arange(0, WORDS * (32 // BITS))
    mask = valid[:, None] & (channel < DIM)[None, :]
    tl.store(OUT + row[:, None].to(tl.int64) * DIM + channel[None, :], x, mask=mask)


def attend(query: Tensor, turned: Tensor, state: LayerState, scaling: float) -> Tensor:
    """`Absorbed` of runtime/latent.py: [B, H, n, R] and [B, H, n, P] -> [B, H, n, R]."""
    batch, group, n, width = query.shape
    rows = triton.cdiv(n * group, LATENT_ROWS)
    splits = _splits(n * group, batch, state.key.values.shape[2], query.device)
    out = query.new_empty((splits, batch, n, group, width), dtype=torch.float32)
    lse = query.new_empty((splits, batch, n, group), dtype=torch.float32)
    k, v = source(state.key), source(state.value)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # its bfloat16 products are wrong
    asked, turns = query.contiguous(), turned.contiguous()
    wide = interpreted or query.dtype == torch.float32

    def launch(stages: int) -> None:
        attend_tile[(rows, batch, splits)](
            asked, turns, out, lse, state.clock.device, state.clock.starts, *k.tensors, *k.numbers,
            *k.codes, *v.tensors, *v.numbers, *v.codes, n, splits, scaling, group, wide,
            *k.constants, *v.constants,
            ROWS=LATENT_ROWS, KEYS=LATENT_KEYS, num_warps=WARPS, num_stages=stages,
        )  # fmt: skip

    deepest(("latent", k.constants, v.constants, query.dtype, query.device), STAGES, launch)
    return merge(out, lse, None).transpose(1, 2).to(query.dtype)


def _splits(queries: int, batch: int, held: int, device: torch.device) -> int:
    """Parts of the sequence: enough programs for the device."""
    if device.type != "cuda":
        return 1
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return int(latent_splits(queries, batch, held, processors))


def takes_chunks(state: LayerState, query: Tensor, nope: int, value: int) -> bool:
    """Whether `expanded` takes these queries: one sequence, 16 bits, rows of whole 16 bytes."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    dims = query.shape[-1], nope, value, state.key.dim, state.value.dim
    return query.is_cuda and half and not state.clock.padded and all(x % 8 == 0 for x in dims)


class Expand(Protocol):
    """Latents [B, T, R] and rotary keys [B, T, P] to keys [B, H, T, D] and values [B, H, T, Dv]."""

    @property
    def value(self) -> int: ...

    def __call__(self, latents: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]: ...


def expanded(query: Tensor, state: LayerState, up: Expand, scaling: float) -> Tensor:
    """Causal attention of the last n tokens of one sequence, [1, H, n, D] -> [1, H, n, Dv].

    Queries go in blocks as long as a piece; each meets the pieces of its past, then its own.
    """
    heads, n, width = query.shape[1], query.shape[2], query.shape[3] - state.value.dim
    piece = latent_piece(heads, width + up.value)
    total = state.clock.host
    mixed = []
    for at in range(0, n, piece):
        block = query[:, :, at : at + piece]
        own = total - n + at
        places = [(first, min(first + piece, own)) for first in range(0, own, piece)]
        places.append((own, own + block.shape[2]))
        mixed.append(_over(block, state, up, scaling, places))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=2)


def _over(
    query: Tensor, state: LayerState, up: Expand, scaling: float, places: list[tuple[int, int]]
) -> Tensor:
    """Attention to positions [first, end) in turn, the last of which are the queries' own."""
    sums = top = None
    for index, (first, end) in enumerate(places):
        last = index == len(places) - 1
        part, lse = _piece(query, state, up, scaling, first, end, last)
        if sums is None or top is None:
            if last:
                return part
            sums, top = part.float(), lse
            continue
        sums.lerp_(part.float(), torch.sigmoid(lse - top)[..., None])
        top = torch.logaddexp(top, lse)
    assert sums is not None  # a block has at least its own tokens
    return sums.to(query.dtype)


def _piece(
    query: Tensor,
    state: LayerState,
    up: Expand,
    scaling: float,
    first: int,
    end: int,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Attention to one piece: [1, H, n, Dv] and its log-sum-exp [1, H, n]."""
    latents, rotary = (
        write_out(side, state, first, end - first, query.dtype) for side in (state.key, state.value)
    )
    keys, values = up(latents, rotary)
    del latents, rotary
    return _attention(query, keys, values, scaling, causal)


def _attention(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """Fused attention, causal from the first key on, [1, H, n, D] -> [1, H, n, Dv] and its
    log-sum-exp [1, H, n].

    cuDNN's on Hopper, twice as fast, where it has a plan for such heads; it makes one for every
    length, so odd ones go through torch's own.
    """
    n, count = query.shape[2], keys.shape[2]
    kind = query.shape[-1], values.shape[-1], query.dtype
    planned = n % PLANNED_QUERIES == 0 and (count == n or count % PLANNED_KEYS == 0)
    if planned and kind not in _without_plan and _is_hopper(query.device):
        flags = None, True, 0.0, causal, False
        try:
            out, lse, *_ = _library_attention(query, keys, values, *flags, scale=scaling)
            return out, lse.reshape(query.shape[:3])
        except RuntimeError:  # no plan for such heads in this cuDNN
            _without_plan.add(kind)
    out, lse, *_ = _efficient_attention(query, keys, values, None, True, 0.0, causal, scale=scaling)
    return out, lse[..., :n]


def _is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


def write_out(
    side: SideState, state: LayerState, first: int, count: int, dtype: torch.dtype
) -> Tensor:
    """Positions [first, first + count) of one sequence's side in 16 bits, [1, count, D]."""
    out = torch.empty((1, count, side.dim), dtype=dtype, device=side.values.device)
    held = source(side)
    write_tile[(triton.cdiv(count, LATENT_KEYS),)](
        out, state.clock.device, first, count, *held.tensors, *held.numbers, *held.codes,
        *held.constants,
        KEYS=LATENT_KEYS, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out
