"""Attention over packed keys and values in Triton: every format, any number of queries.

The general path: tiles of keys and values are dequantized in the kernel as they are read, for a
tile of query rows (the query heads of one KV head folded into rows). Windows, left padding,
soft caps, sinks of either kind. Faster ways for what most runs need are in cuda_decode.py (one
token) and staged.py (chunks); this one takes what they do not, and runs in Triton's interpreter.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...planner.memory.activation.workspace import tile_rows, tile_splits
from ..cache.layer_state import LayerState
from .stages import deepest
from .triton_read import read_tile, source

_LOG2E = 1.4426950408889634
_STAGES = 3


@triton.jit
def _attend(Q, OUT, LSE, CLOCK, STARTS,
            KV, KP, KR, KS, k_capacity, k_rows, k_sinks, k_buffered, KM, KL,
            VV, VP, VR, VS, v_capacity, v_rows, v_sinks, v_buffered, VM, VL,
            n, heads, splits, window, scale, softcap,
            GROUP: tl.constexpr, CAPPED: tl.constexpr, WIDE_DOT: tl.constexpr,
            ALIGNED: tl.constexpr,
            K_BITS: tl.constexpr, K_DIM: tl.constexpr, K_WIDTH: tl.constexpr,
            K_BLOCK: tl.constexpr, K_KIND: tl.constexpr, K_WORDS: tl.constexpr,
            K_HELD: tl.constexpr, K_FIRST: tl.constexpr,
            K_EXTRA: tl.constexpr, K_TABLE: tl.constexpr,
            V_BITS: tl.constexpr, V_DIM: tl.constexpr, V_WIDTH: tl.constexpr,
            V_BLOCK: tl.constexpr, V_KIND: tl.constexpr, V_WORDS: tl.constexpr,
            V_HELD: tl.constexpr, V_FIRST: tl.constexpr,
            V_EXTRA: tl.constexpr, V_TABLE: tl.constexpr,
            ROWS: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    """Rows are (query, head of the group); OUT float32 [splits, B, H, n * GROUP, DV], LSE log2."""
    total = tl.load(CLOCK)
    head = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    start = tl.load(STARTS + head // heads)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    asks = total - n + row // GROUP
    k_wide: tl.constexpr = K_WORDS * (32 // K_BITS)
    v_wide: tl.constexpr = V_WORDS * (32 // V_BITS)
    channel = tl.arange(0, k_wide)
    place = ((head * GROUP + row % GROUP) * n + row // GROUP)[:, None] * K_DIM + channel[None, :]
    real = (row < n * GROUP)[:, None] & (channel < K_DIM)[None, :]
    q = tl.load(Q + place, mask=real, other=0.0)
    first = start
    if window > 0:
        first = tl.maximum(first, total - n + tl.program_id(0) * ROWS // GROUP - window + 1)
    last = tl.minimum(total, total - n + (tl.program_id(0) * ROWS + ROWS - 1) // GROUP + 1)
    share = tl.cdiv(tl.cdiv(tl.maximum(last - first, 0), splits), KEYS) * KEYS
    first += split * share
    last = tl.minimum(last, first + share)
    top = tl.full([ROWS], -1e30, tl.float32)
    norm = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, v_wide], tl.float32)
    for at in range(first, last, KEYS):
        position = at + tl.arange(0, KEYS)
        valid = position < last
        k = read_tile(position, valid, KV, KP, KR, KS, head, heads, k_capacity, k_rows, k_sinks,
                      k_buffered, total, KM, KL, K_BITS, K_DIM, K_WIDTH, K_BLOCK, K_KIND, K_WORDS,
                      K_HELD, K_FIRST, K_EXTRA, K_TABLE)  # fmt: skip
        v = read_tile(position, valid, VV, VP, VR, VS, head, heads, v_capacity, v_rows, v_sinks,
                      v_buffered, total, VM, VL, V_BITS, V_DIM, V_WIDTH, V_BLOCK, V_KIND, V_WORDS,
                      V_HELD, V_FIRST, V_EXTRA, V_TABLE)  # fmt: skip
        if WIDE_DOT:
            s = tl.dot(q.to(tl.float32), tl.trans(k), input_precision="ieee") * scale
        else:
            s = tl.dot(q, tl.trans(k.to(q.dtype))) * scale
        if CAPPED:
            s = softcap * (2.0 / (1.0 + tl.exp2(-2.0 * 1.4426950408889634 / softcap * s)) - 1.0)
        s = s * 1.4426950408889634
        seen = valid[None, :] & (position[None, :] <= asks[:, None])
        if window > 0:
            seen = seen & (position[None, :] > asks[:, None] - window)
        if ALIGNED:
            own = (asks - start) // window
            seen = seen & ((position - start)[None, :] // window == own[:, None])
        s = tl.where(seen, s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        keep = tl.exp2(top - new)
        norm = norm * keep + tl.sum(p, 1)
        mixed = mixed * keep[:, None]
        if WIDE_DOT:
            mixed += tl.dot(p, v, input_precision="ieee")
        else:
            mixed += tl.dot(p.to(q.dtype), v.to(q.dtype))
        top = new
    mixed = mixed / tl.where(norm > 0, norm, 1.0)[:, None]
    lse = tl.where(norm > 0, top + tl.log2(tl.where(norm > 0, norm, 1.0)), float("-inf"))
    row_at = (split * tl.num_programs(1) + head) * (n * GROUP) + row
    channel = tl.arange(0, v_wide)
    to = row_at[:, None] * V_DIM + channel[None, :]
    tl.store(OUT + to, mixed, mask=(row < n * GROUP)[:, None] & (channel < V_DIM)[None, :])
    tl.store(LSE + row_at, lse, mask=row < n * GROUP)


def attend(
    query: Tensor,
    state: LayerState,
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal attention of the last n tokens, [B, Hq, n, D] -> [B, Hq, n, Dv], dtype of `query`."""
    batch, query_heads, n, _ = query.shape
    heads = state.key.values.shape[1]
    group, width = query_heads // heads, state.value.dim
    rows = int(tile_rows(n * group))
    blocks = triton.cdiv(n * group, rows)
    splits = _splits(n, group, batch * heads, state.key.values.shape[2], query.device)
    out = query.new_empty((splits, batch, heads, n, group, width), dtype=torch.float32)
    lse = query.new_empty((splits, batch, heads, n, group), dtype=torch.float32)
    k, v = source(state.key), source(state.value)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # its bfloat16 products are wrong
    asked = query.contiguous()
    wide = interpreted or query.dtype == torch.float32
    keys = 64 if interpreted or state.key.dim <= 128 else 32

    def launch(stages: int) -> None:
        _attend[(blocks, batch * heads, splits)](
            asked, out, lse, state.clock.device, state.clock.starts,
            *k.tensors, *k.numbers, *k.codes, *v.tensors, *v.numbers, *v.codes,
            n, heads, splits, state.window or 0, scaling, softcap or 1.0,
            group, softcap is not None, wide, state.aligned, *k.constants, *v.constants,
            ROWS=rows, KEYS=keys, num_warps=4, num_stages=stages,
        )  # fmt: skip

    deepest(("attend", k.constants, v.constants, rows, query.dtype, query.device), _STAGES, launch)
    extra = None if sinks is None else sinks.float().view(1, heads, 1, group) * _LOG2E
    return merge(out, lse, extra).permute(0, 1, 3, 2, 4).flatten(1, 2).to(query.dtype)


def merge(out: Tensor, lse: Tensor, sinks: Tensor | None) -> Tensor:
    """Splits by their log2-sum-exp: [S, B, H, n, G, D] and [S, B, H, n, G] -> [B, H, n, G, D]."""
    top = lse.amax(0)
    if sinks is not None:
        top = torch.maximum(top, sinks)
    top = top.clamp(min=-1e30)  # a row that sees nothing
    weight = torch.exp2(lse - top)
    norm = weight.sum(0)
    if sinks is not None:
        norm = norm + torch.exp2(sinks - top)
    return (out * weight[..., None]).sum(0) / norm.clamp(min=1e-30)[..., None]


def _splits(n: int, group: int, heads: int, capacity: int, device: torch.device) -> int:
    """Parts of the sequence: enough programs for the device, each with work to do."""
    if device.type != "cuda":
        return 1
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return int(tile_splits(n, group, heads, capacity, processors))
