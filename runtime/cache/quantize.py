"""Round-to-nearest asymmetric quantization of keys and values, at every granularity.

    offset = min(x)        scale = (max(x) - min(x)) / (2^bits - 1)        both rounded to fp16
    code = clamp(round((x - offset) / scale), 0, 2^bits - 1)        value = code * scale + offset

over the elements that share a pair: a tile of tokens x channels that the granularity names.
Tables of levels (planner/formats/code_tables.py) take the nearest level's code instead, and
8-bit floats are symmetric: offset 0, scale = the largest magnitude / 1.75. A clip factor narrows
[min, max] about its middle first. NVFP4 and MXFP4 have scales of their own (block_scales.py).
The minimum is stored itself, not as an integer zero point: see planner/formats/kv_format.py.
A tile of equal elements has scale 0, codes 0 and the value of its offset.

For a tile without fp16 overflow |value - x| <= scale/2, plus what rounding offset and scale to
fp16 costs: 2^-11 (|offset| + code * scale).
"""

from functools import lru_cache

import torch
from torch import Tensor

from ...planner.formats import code_tables
from ...planner.formats.configuration import Granularity
from ...planner.formats.kv_format import SideFormat
from .block_scales import dequantize_blocks, quantize_blocks

FP16_MAX = 65504.0


def quantize(
    x: Tensor, form: SideFormat, real: Tensor | None = None, tensor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Quantize [B, H, T, D], T a multiple of `form.block`.

    Returns codes uint8 [B, H, T, D] and pairs fp16 in the planner's scale shape for T tokens.
    `real`, bool [B, T], excludes padding from the per-tensor minimum and maximum, which it
    would otherwise move; the other granularities do not look at it. `tensor`, float32 [B, H], is
    NVFP4's.
    """
    x = x.float()
    if form.table in code_tables.BLOCKS:
        return quantize_blocks(x, form, tensor)
    low, high = _extremes(x, form, real)
    if form.table == code_tables.FP8:
        steps = code_tables.FP8_MOST
        low, high = torch.zeros_like(low), torch.maximum(high, -low)
    else:
        steps = 2**form.bits - 1
        if form.clip < 100:
            cut = (high - low) * clip_margin(form)
            low, high = low + cut, high - cut
    offset = low.clamp(-FP16_MAX, FP16_MAX).to(torch.float16)
    scale = ((high - low) / steps).clamp(max=FP16_MAX).to(torch.float16)
    pairs = torch.stack((scale, offset), dim=-1)
    wide_scale, wide_offset = spread(pairs, form, x.shape)
    inverse = torch.where(wide_scale > 0, 1.0 / wide_scale, 0.0)
    return _encode((x - wide_offset) * inverse, form, x.shape[-1]), pairs


def clip_margin(form: SideFormat) -> float:
    """What +clip cuts off a range at each end, as a share of it that float32 holds exactly enough
    for kernels to cut the same."""
    return float(torch.tensor((100 - form.clip) / 200, dtype=torch.float32))


def level_table(form: SideFormat, dim: int, device: torch.device) -> Tensor | None:
    """Levels and, behind them, their boundaries of a table's codes, float32 [2^(b + 1) - 1]; None
    for integers, floats and blocks."""
    if form.table in ("", code_tables.FP8, *code_tables.BLOCKS):
        return None
    return _level_table(form.table, form.shared_values(dim), device)


@lru_cache(maxsize=64)
def _level_table(table: str, shared: int, device: torch.device) -> Tensor:
    levels, boundaries = code_tables.levels(table, shared), code_tables.boundaries(table, shared)
    return torch.cat([torch.from_numpy(levels), torch.from_numpy(boundaries)]).to(device)


def _encode(x: Tensor, form: SideFormat, dim: int) -> Tensor:
    """Codes uint8 of values on the levels' scale."""
    if form.table == code_tables.FP8:
        most = 256 * code_tables.FP8_MOST
        return (x * 256).clamp(-most, most).to(torch.float8_e4m3fn).view(torch.uint8)
    table = level_table(form, dim, x.device)
    if table is None:
        return x.round().clamp(0, 2**form.bits - 1).to(torch.uint8)
    return torch.bucketize(x.contiguous(), table[2**form.bits :]).to(torch.uint8)


def _decode(codes: Tensor, form: SideFormat, dim: int) -> Tensor:
    """Levels, float32, of codes."""
    if form.table == code_tables.FP8:
        return codes.contiguous().view(torch.float8_e4m3fn).float() * 2.0**-8
    table = level_table(form, dim, codes.device)
    return codes.float() if table is None else table[codes.int()]


def dequantize(
    codes: Tensor, pairs: Tensor, form: SideFormat, tensor: Tensor | None = None
) -> Tensor:
    """Codes [B, H, T, D] and their pairs -> values float32 [B, H, T, D]."""
    if form.table in code_tables.BLOCKS:
        return dequantize_blocks(codes, pairs, form, tensor)
    scale, offset = spread(pairs, form, codes.shape)
    return _decode(codes, form, codes.shape[-1]) * scale + offset


def spread(pairs: Tensor, form: SideFormat, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """(scale, offset), float32, each broadcastable to `shape` = [B, H, T, D]."""
    dim = shape[-1]
    wide = pairs.float()
    if form.granularity is Granularity.PER_TENSOR:
        wide = wide[:, None, :, None, :]
    else:
        if form.block > 1:
            wide = wide.repeat_interleave(form.block, dim=2)
        if form.granularity is not Granularity.PER_CHANNEL and form.groups(dim) > 1:
            wide = wide.repeat_interleave(form.group_width(dim), dim=3)[:, :, :, :dim]
    return wide[..., 0], wide[..., 1]


def _extremes(x: Tensor, form: SideFormat, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of every tile, in the planner's scale shape without its pair axis."""
    batch, _, tokens, dim = x.shape
    if form.granularity is Granularity.PER_TENSOR:
        low = high = x
        if real is not None:
            gap = ~real[:, None, :, None]
            low, high = x.masked_fill(gap, torch.inf), x.masked_fill(gap, -torch.inf)
        low, high = low.amin((1, 2, 3)), high.amax((1, 2, 3))
        empty = low > high  # a chunk that is all padding for this sequence
        low, high = low.masked_fill(empty, 0), high.masked_fill(empty, 0)
        return low[:, None].expand(batch, tokens), high[:, None].expand(batch, tokens)
    tiles = x.unflatten(2, (tokens // form.block, form.block))
    if form.granularity is Granularity.PER_CHANNEL:
        return tiles.amin(3), tiles.amax(3)
    width, groups = form.group_width(dim), form.groups(dim)
    missing = groups * width - dim
    if missing:  # repeating the last channel leaves the last group's extremes as they are
        tiles = torch.cat((tiles, tiles[..., -1:].expand(*tiles.shape[:-1], missing)), dim=-1)
    tiles = tiles.unflatten(-1, (groups, width))
    return tiles.amin((3, 5)), tiles.amax((3, 5))
