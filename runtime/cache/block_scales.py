"""NVFP4 and MXFP4: blocks of a token's channels with codes of four bits and a scale of one byte.

    value = e2m1(code) * scale

    mxfp4   32 channels; scale = 2^(byte - 127), e8m0: the least that leaves the largest magnitude
            below 7, which 6 then stands for
    nvfp4   16 channels; scale = e4m3(byte) * tensor; e4m3(byte) = largest magnitude / (6 tensor)

Codes are rounded to nearest, ties to an even mantissa. The microscaling standard leaves the choice
of a scale to who writes it; its example takes 8 in the place of 7 (no bound at 6 would need 6). Of
normal values 7 leaves the least squared error: 0.0125, with 6 it is 0.0133, with 8 0.0132.

NVFP4's tensor scale must be known before a sequence's first block is written, and what comes later
is not. It is a power of two for each head of a sequence, by the largest magnitude of its first
FIRST_TOKENS real tokens, as far as the first append goes (as smoothing's mean is): their largest
block scale is at 16 to 32 of e4m3's 448, so that later values may be 14 times as large, and a
thousandth as small before scales lose bits. Multiplying by a power of two rounds nothing.
"""

from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ...planner.formats.code_tables import E2M1, NVFP4
from ...planner.formats.kv_format import SideFormat
from .layer_state import Clock

FIRST_TOKENS = 64
LARGEST, MOST = 6.0, 448.0
"""The largest e2m1, the largest e4m3."""
MX_KEPT = 8.0 / 7.0
"""Times a largest magnitude of 7, a power of two: the next scale begins there."""
ROOM = 5
"""Of e4m3's largest, 2^9, the first tokens' scales stay below 2^ROOM."""


def freeze_tensor(tensor: Tensor, x: Tensor, clock: Clock) -> None:
    """Set `tensor`, float32 [B, H], for sequences whose first real tokens are in x [B, H, n, D],
    which the clock counts already; others are left. Lengths are read on the device."""
    tokens = x.shape[2]
    first = clock.starts - (clock.device - tokens)
    if not clock.padded:
        x = x[:, :, :FIRST_TOKENS]
    places = torch.arange(x.shape[2], device=x.device)[None, :]
    taken = (places >= first[:, None]) & (places < first[:, None] + FIRST_TOKENS)
    arrives = (first >= 0) & (first < tokens)
    largest = (x.float().abs().amax(-1) * taken[:, None]).amax(-1)
    exponent = torch.frexp(largest / LARGEST).exponent.clamp(-100, 100)
    scale = torch.ldexp(torch.ones_like(largest), exponent - ROOM)
    tensor.copy_(torch.where(arrives[:, None] & largest.isfinite(), scale, tensor))


def quantize_blocks(x: Tensor, form: SideFormat, tensor: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes uint8 [B, H, T, D] and scales uint8 [B, H, T, G] of float32 [B, H, T, D]; `tensor`
    [B, H] is NVFP4's."""
    dim, width, groups = x.shape[-1], form.group_width(x.shape[-1]), form.groups(x.shape[-1])
    padded = torch.nn.functional.pad(x, (0, groups * width - dim))
    largest = padded.unflatten(-1, (groups, width)).abs().amax(-1)
    if form.table == NVFP4:
        assert tensor is not None  # its sides have one
        shares = largest / LARGEST / tensor[:, :, None, None]
        scales = shares.clamp(max=MOST).to(torch.float8_e4m3fn).view(torch.uint8)
    else:
        bits = (largest * MX_KEPT).view(torch.int32)
        scales = ((bits >> 23) - 2).clamp(1, 254).to(torch.uint8)
    return _codes(x, _spread(scales, form, tensor, dim)), scales


def dequantize_blocks(
    codes: Tensor, scales: Tensor, form: SideFormat, tensor: Tensor | None
) -> Tensor:
    """Values float32 [B, H, T, D] of what `quantize_blocks` gives."""
    levels = _levels(codes.device)[codes.int()]
    return levels * _spread(scales, form, tensor, codes.shape[-1])


def _spread(scales: Tensor, form: SideFormat, tensor: Tensor | None, dim: int) -> Tensor:
    """The scale of every channel, float32 [B, H, T, D]."""
    if form.table == NVFP4:
        assert tensor is not None  # its sides have one
        wide = scales.contiguous().view(torch.float8_e4m3fn).float() * tensor[:, :, None, None]
    else:
        wide = (scales.int() << 23).view(torch.float32)
    return wide.repeat_interleave(form.group_width(dim), dim=-1)[..., :dim]


def _codes(x: Tensor, scale: Tensor) -> Tensor:
    """Codes uint8 of x on the levels' scale; of a scale of 0, zeros."""
    size = torch.where(scale > 0, x.abs() / torch.where(scale > 0, scale, 1.0), 0.0)
    code = torch.zeros_like(x, dtype=torch.uint8)
    for below, (low, high) in enumerate(pairwise(E2M1)):
        middle = (low + high) / 2  # a tie goes to the even code of the two
        code += size >= middle if below % 2 else size > middle
    return code | ((x < 0).to(torch.uint8) << 3)


@lru_cache(maxsize=8)
def _levels(device: torch.device) -> Tensor:
    return torch.tensor([*E2M1, *(-x for x in E2M1)], device=device)
