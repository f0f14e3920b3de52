"""Round-to-nearest asymmetric quantization of keys and values, at every granularity.

    offset = min(x)        scale = (max(x) - min(x)) / (2^bits - 1)        both rounded to fp16
    code = clamp(round((x - offset) / scale), 0, 2^bits - 1)        value = code * scale + offset

over the elements that share a pair: a tile of tokens x channels that the granularity names.
The minimum is stored itself, not as an integer zero point: see planner/formats/kv_format.py.
A tile of equal elements has scale 0, codes 0 and the value of its offset.

For a tile without fp16 overflow |value - x| <= scale/2, plus what rounding offset and scale to
fp16 costs: 2^-11 (|offset| + code * scale).
"""

import torch
from torch import Tensor

from ...planner.formats.configuration import Granularity
from ...planner.formats.kv_format import SideFormat

FP16_MAX = 65504.0


def quantize(x: Tensor, form: SideFormat, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Quantize [B, H, T, D], T a multiple of `form.block`.

    Returns codes uint8 [B, H, T, D] and pairs fp16 in the planner's scale shape for T tokens.
    `real`, bool [B, T], excludes padding from the per-tensor minimum and maximum, which it
    would otherwise move; the other granularities do not look at it.
    """
    levels = 2**form.bits - 1
    x = x.float()
    low, high = _extremes(x, form, real)
    offset = low.clamp(-FP16_MAX, FP16_MAX).to(torch.float16)
    scale = ((high - low) / levels).clamp(max=FP16_MAX).to(torch.float16)
    pairs = torch.stack((scale, offset), dim=-1)
    wide_scale, wide_offset = spread(pairs, form, x.shape)
    inverse = torch.where(wide_scale > 0, 1.0 / wide_scale, 0.0)
    codes = ((x - wide_offset) * inverse).round().clamp(0, levels).to(torch.uint8)
    return codes, pairs


def dequantize(codes: Tensor, pairs: Tensor, form: SideFormat) -> Tensor:
    """Codes [B, H, T, D] and their pairs -> values float32 [B, H, T, D]."""
    scale, offset = spread(pairs, form, codes.shape)
    return codes.float() * scale + offset


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
