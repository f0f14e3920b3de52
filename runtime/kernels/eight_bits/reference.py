"""What stage8.cu and chunk8.cu compute, in plain torch: the truth that their tests hold them to.

Integer keys and queries, e4m3 weights and values, scales by tile and by query, sums of a tile
added up in float32, a norm that is the sum of the weights as they were rounded. Byte images of
tiles as shared memory holds them, for staging.
"""

import math

import torch
from torch import Tensor

from .chunk8 import ONES, TILE

SAMPLES = 256  # keys that the mean is taken of, at most
_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def sampled_mean(keys: Tensor) -> Tensor:
    """[T, D] -> [D]: the mean of up to 256 of the keys, evenly spread."""
    count = min(len(keys), SAMPLES)
    return keys[torch.arange(count, device=keys.device) * len(keys) // count].mean(dim=0)


def quantized_tiles(rows: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows [T, D] as tiles [tiles, TILE, D] of `kind`, the last one filled up with zeros, and
    their scales [tiles]."""
    tiles = -(-len(rows) // TILE)
    filled = rows.new_zeros(tiles * TILE, rows.shape[1])
    filled[: len(rows)] = rows
    filled = filled.view(tiles, TILE, -1)
    most = filled.abs().amax(dim=(1, 2)).clamp(min=1e-20)
    scaled = filled * (_LARGEST[kind] / most)[:, None, None]
    codes = scaled.round().to(kind) if kind == torch.int8 else scaled.to(kind)
    return codes, most / _LARGEST[kind]


def swizzled(rows: Tensor) -> Tensor:
    """Rows of 64 or 128 bytes [.., R, P], R a multiple of 8, as they lie in a swizzled tile."""
    pitch = rows.shape[-1]
    row = torch.arange(rows.shape[-2], device=rows.device)[:, None]
    turn = (row & 7) << 4 if pitch == 128 else (row >> 1 & 3) << 4
    at = torch.arange(pitch, device=rows.device)[None, :] ^ turn
    return rows.gather(-1, at.expand(rows.shape))


def key_image(codes: Tensor) -> Tensor:
    """Key tiles [tiles, TILE, D] as bytes [tiles, TILE * D]."""
    return swizzled(codes.view(torch.uint8)).flatten(1)


def value_image(codes: Tensor) -> Tensor:
    """Value tiles [tiles, TILE, D] as bytes [tiles, TILE * (D + ONES)]: blocks of 64 tokens, along
    rows channels, then ones and zeros, tokens in the order in which threads hold their weights."""
    order = torch.arange(64, device=codes.device)
    inner = order % 16
    token = order - inner + inner % 4 // 2 * 8 + inner // 4 * 2 + inner % 2
    blocks = codes.view(torch.uint8).unflatten(1, (-1, 64))[:, :, token]
    ones = torch.zeros_like(blocks[..., :ONES])
    ones[..., 0] = torch.ones((), dtype=torch.float8_e4m3fn).view(torch.uint8)
    return swizzled(torch.cat([blocks, ones], dim=3).mT.contiguous()).flatten(1)


def rounded_weights(powers: Tensor) -> Tensor:
    """2^y of logits y, none above 8, as e4m3.

    Its code of 2^y is 8 (y + 7) but for 0 to 0.69 between powers of two, 0.458 on average, so a
    line gives it, to the nearest.
    """
    codes = (8 * powers + (56 - 0.458 + 0.5)).clamp(min=0).floor().to(torch.uint8)
    return codes.view(torch.float8_e4m3fn).float()


def attend(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Causal attention of one head's last n tokens: [n, D] to keys and values [T, D], float32."""
    n, tokens = len(query), len(keys)
    codes, key_scales = quantized_tiles(keys - sampled_mean(keys), torch.int8)
    parts, value_scales = quantized_tiles(values, torch.float8_e4m3fn)
    most = query.abs().amax(dim=1).clamp(min=1e-20)
    asked = (query * (127.0 / most)[:, None]).round().double()
    steps = most / 127.0 * (scaling * math.log2(math.e))
    place = torch.arange(n, device=query.device)[:, None] + tokens - n
    top = torch.full((n,), -1e30, device=query.device)
    norm, sums = torch.zeros_like(top), torch.zeros_like(query)
    for tile in range(len(codes)):
        logits = (asked @ codes[tile].double().mT).float()
        logits *= (steps * key_scales[tile])[:, None]
        seen = torch.arange(tile * TILE, (tile + 1) * TILE, device=query.device)[None, :] <= place
        logits.masked_fill_(~seen, -math.inf)
        highest = logits.amax(dim=1).clamp(min=-1e30)
        weights = rounded_weights(logits - highest[:, None] + 8.0)
        above = torch.maximum(top, highest)
        keep, more = (top - above).exp2(), (highest - above).exp2()
        product = weights @ parts[tile].float()
        sums = sums * keep[:, None] + product * (more * value_scales[tile])[:, None]
        norm = norm * keep + weights.sum(dim=1) * more
        top = above
    return sums / norm[:, None]
