"""The truth that the kernels are held to: append, read back and attend, in plain PyTorch.

Works on the CPU and on a GPU, in float32, for every format of planner/formats/kv_format.py. It
reads lengths on the host and dequantizes what it attends to; speed is the kernels' affair.

Attention always reads what the cache holds after the append: a chunk's tokens see their own
keys and values as stored, quantized where they are packed. What is stored for a token is
rounded to the 16-bit type first, so that a token packed at once and one that waited in the
residual buffer give the same codes. With a format that streams freely (per token, no residual)
a token's codes depend on nothing but its key, so the cache is the same for every chunking.
"""

import torch
from torch import Tensor

from ..planner.formats.configuration import Granularity
from .cache.layer_state import LayerState, SideState
from .cache.packing import pack, unpack
from .cache.quantize import dequantize, quantize

QUERY_BLOCK = 512  # queries attended at once: bounds the score matrix


def append(state: LayerState, key: Tensor, value: Tensor) -> None:
    """Append [B, H, n, D] keys and values that `state.clock` already counts."""
    _append_side(state.key, key, state)
    _append_side(state.value, value, state)


def attend(
    query: Tensor,
    state: LayerState,
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal attention of the last n tokens, [B, Hq, n, D] -> [B, Hq, n, Dv], dtype of `query`.

    Query i has position total - n + i and sees the keys from the end of its sequence's padding,
    and from its window's edge, up to itself. `sinks`, [Hq], is one more logit in each row's
    softmax, without a value (gpt-oss). A row that sees nothing gives zeros.
    """
    total, length = state.clock.host, query.shape[2]
    oldest = max(state.key.oldest(total), state.value.oldest(total))
    if state.window is not None:
        oldest = max(oldest, total - length - state.window + 1)
    key = read(state.key, oldest, total)
    value = read(state.value, oldest, total)
    mixed = []
    for start in range(0, length, QUERY_BLOCK):
        block = query[:, :, start : start + QUERY_BLOCK]
        hidden = hidden_pairs(state, total - length + start, block.shape[2], oldest, total)
        mixed.append(attend_block(block, key, value, hidden, scaling, softcap, sinks))
    return torch.cat(mixed, dim=2).to(query.dtype)


def capturable(state: LayerState, tokens: int) -> bool:
    """Never: how many tokens are held is read on the host."""
    return False


def appends_on_device(state: LayerState) -> bool:
    """Never either."""
    return False


def read(side: SideState, first: int, total: int) -> Tensor:
    """What the cache holds for positions [first, total), float32 [B, H, total - first, D]."""
    if not side.form.quantized:
        return side.values[:, :, _slots(first, total, 0, side.values)].float()
    sinks, end = side.sink_tokens, side.packed_end(total)
    parts = []
    if side.sinks is not None and first < sinks:
        parts.append(side.sinks[:, :, first : min(sinks, total)].float())
    start = max(first, sinks)
    if start < end:
        parts.append(_read_packed(side, start, end))
    if side.residual is not None and max(start, end) < total:
        held = side.residual[:, :, _slots(max(start, end), total, sinks, side.residual)]
        parts.append(held.float())
    return torch.cat(parts, dim=2)


def _slots(first: int, last: int, sinks: int, buffer: Tensor, block: int = 1) -> Tensor | slice:
    """Slots of positions [first, last) in a ring of `buffer`'s length, one for each block: a
    slice, which copies nothing, where they do not wrap."""
    begin, end = (first - sinks) // block, -(-(last - sinks) // block)
    if begin // buffer.shape[2] == max(end - 1, begin) // buffer.shape[2]:
        start = begin % buffer.shape[2]
        return slice(start, start + end - begin)
    places = torch.arange(first - sinks, last - sinks, block, device=buffer.device) // block
    return places % buffer.shape[2]


def _read_packed(side: SideState, first: int, last: int) -> Tensor:
    form, sinks = side.form, side.sink_tokens
    aligned = sinks + (first - sinks) // form.block * form.block
    rows = side.values[:, :, _slots(aligned, last, sinks, side.values)]
    codes = unpack(rows, form.bits, side.dim)
    pairs = _pairs_by_token(side)
    places = _slots(aligned, last, sinks, pairs, form.block)
    held = pairs[:, :, places]
    if form.granularity is Granularity.PER_TENSOR:
        held = held[:, 0]
    return dequantize(codes, held, form, side.tensor)[:, :, first - aligned :]


def _pairs_by_token(side: SideState) -> Tensor:
    """Pairs with the token (or block) axis third: per-tensor pairs have no head axis."""
    assert side.scale is not None  # every quantized side has pairs
    per_tensor = side.form.granularity is Granularity.PER_TENSOR
    return side.scale[:, None] if per_tensor else side.scale


def _append_side(side: SideState, x: Tensor, state: LayerState) -> None:
    total = state.clock.host
    before = total - x.shape[2]
    form, sinks = side.form, side.sink_tokens
    if not form.quantized:
        _put(side.values, x.to(side.values.dtype), before, total, 0)
        return
    stored = x.to(torch.float16 if x.dtype == torch.float16 else torch.bfloat16)
    if before < sinks and side.sinks is not None:
        taken = min(sinks, total) - before
        side.sinks[:, :, before : before + taken] = stored[:, :, :taken]
        stored, before = stored[:, :, taken:], before + taken
    packed, end = side.packed_end(before), side.packed_end(total)
    if side.residual is not None and packed < before:
        waiting = side.residual[:, :, _slots(packed, before, sinks, side.residual)]
        stored = torch.cat((waiting, stored), dim=2)
    settled = end - packed
    if settled:
        _write_packed(side, stored[:, :, :settled], packed, end, state)
    if side.residual is not None and end < total:
        side.residual[:, :, _slots(end, total, sinks, side.residual)] = stored[:, :, settled:]


def _write_packed(side: SideState, x: Tensor, first: int, last: int, state: LayerState) -> None:
    real = None
    if state.clock.padded:
        positions = torch.arange(first, last, device=x.device)
        real = positions[None, :] >= state.clock.starts[:, None]
    codes, pairs = quantize(x, side.form, real, side.tensor)
    sinks = side.sink_tokens
    _put(side.values, pack(codes, side.form.bits), first, last, sinks)
    per_tensor = side.form.granularity is Granularity.PER_TENSOR
    pairs = pairs[:, None] if per_tensor else pairs
    _put(_pairs_by_token(side), pairs, first, last, sinks, side.form.block)


def _put(ring: Tensor, rows: Tensor, first: int, last: int, sinks: int, block: int = 1) -> None:
    """Write the rows of positions [first, last), one for each block, into a ring. Of more than it
    holds only the last: which of two rows for one slot stays, a GPU does not say."""
    over = max(rows.shape[2] - ring.shape[2], 0)
    if over:
        rows, first = rows[:, :, over:], first + over * block
    ring[:, :, _slots(first, last, sinks, ring, block)] = rows


def hidden_pairs(state: LayerState, first: int, length: int, oldest: int, total: int) -> Tensor:
    """True where queries at [first, first + length) must not look, bool [B or 1, length, keys]."""
    device = state.clock.starts.device
    asks = torch.arange(first, first + length, device=device)[:, None]
    holds = torch.arange(oldest, total, device=device)[None, :]
    hidden = holds > asks
    if state.window is not None:
        hidden = hidden | (holds <= asks - state.window)
    hidden = hidden[None]
    if state.window is not None and state.aligned:
        start = state.clock.starts[:, None, None]
        chunks = [(x[None] - start).div(state.window, rounding_mode="floor") for x in (asks, holds)]
        hidden = hidden | (chunks[0] != chunks[1])
    if state.clock.padded:
        hidden = hidden | (holds[None] < state.clock.starts[:, None, None])
    return hidden


def attend_block(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    hidden: Tensor,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """A block of queries [B, Hq, n, D] over keys and values [B, H, t, D] float32; `hidden`, bool
    [B or 1, n, t], is what each query does not see. The result: [B, Hq, n, Dv] float32."""
    batch, query_heads, length, _ = query.shape
    heads, seen = key.shape[1], key.shape[2]
    grouped = query.float().unflatten(1, (heads, query_heads // heads)).flatten(2, 3)
    scores = (grouped * scaling @ key.mT).unflatten(2, (-1, length))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    # in place and in one pass where possible: on a CPU these passes cost as much as the products
    scores.masked_fill_(hidden[:, None, None], -torch.inf)
    if sinks is not None:
        extra = sinks.float().view(1, heads, -1, 1, 1).expand(batch, -1, -1, length, 1)
        scores = torch.cat((scores, extra), dim=-1)
    weights = scores.softmax(-1)
    if sinks is None:  # a row that sees nothing
        weights.masked_fill_(hidden.all(-1, keepdim=True)[:, None, None], 0)
    return (weights[..., :seen].flatten(2, 3) @ value).unflatten(2, (-1, length)).flatten(1, 2)
