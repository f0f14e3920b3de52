"""Block formats of GGUF files, dequantized by torch on any device.

Each takes the raw blocks, uint8 [blocks, bytes of a block], and gives float32 [blocks, weights
of a block]. Layouts are those of llama.cpp's ggml-common.h, arithmetic that of its
`dequantize_row_*`: scale times code, plus or minus an offset.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockFormat:
    """How a tensor type is stored: `weights` of a block in `size` bytes."""

    name: str
    weights: int
    size: int
    dequantize: Callable[[Tensor], Tensor]


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block, as float32 [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Low halves of all bytes, then high halves: [..., n] -> [..., 2 n]."""
    return torch.cat([packed & 15, packed >> 4], dim=-1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """Bit i of four bytes, for i in 0..31, in the place of a code's fifth bit."""
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    return ((packed[:, :, None] >> places) & 1).flatten(1) << 4


def _float32(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.float32)


def _float16(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.float16).float()


def _bfloat16(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.bfloat16).float()


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).float() + _half(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return _half(blocks, 0) * (codes.float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return _half(blocks, 0) * codes.float() + _half(blocks, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * blocks[:, 2:].contiguous().view(torch.int8).float()


def _scales_and_offsets(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Eight 6-bit scales and eight 6-bit offsets from twelve bytes, float32 [blocks, 8, 1]."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], dim=1)
    offsets = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], dim=1)
    return scales.float()[:, :, None], offsets.float()[:, :, None]


def _q4_k(blocks: Tensor) -> Tensor:
    scales, offsets = _scales_and_offsets(blocks[:, 4:16])
    codes = _nibbles(blocks[:, 16:].unflatten(1, (4, 32))).reshape(-1, 8, 32).float()
    steps = _half(blocks, 0)[:, :, None] * scales
    return (steps * codes - _half(blocks, 2)[:, :, None] * offsets).flatten(1)


def _q5_k(blocks: Tensor) -> Tensor:
    scales, offsets = _scales_and_offsets(blocks[:, 4:16])
    codes = _nibbles(blocks[:, 48:].unflatten(1, (4, 32))).reshape(-1, 8, 32)
    places = torch.arange(8, device=blocks.device, dtype=torch.uint8)[:, None]
    codes = codes | (((blocks[:, None, 16:48] >> places) & 1) << 4)
    steps = _half(blocks, 0)[:, :, None] * scales
    return (steps * codes.float() - _half(blocks, 2)[:, :, None] * offsets).flatten(1)


def _q6_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[:, :128].unflatten(1, (2, 64)))  # [blocks, 2, 128]
    places = torch.arange(0, 8, 2, device=blocks.device, dtype=torch.uint8)[:, None]
    high = (blocks[:, 128:192].unflatten(1, (2, 1, 32)) >> places) & 3
    codes = (low | (high.flatten(2) << 4)).float() - 32
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _half(blocks, 208)
    return (codes.reshape(-1, 16, 16) * scales[:, :, None]).flatten(1)


FORMATS = {
    0: BlockFormat("F32", 1, 4, _float32),
    1: BlockFormat("F16", 1, 2, _float16),
    2: BlockFormat("Q4_0", 32, 18, _q4_0),
    3: BlockFormat("Q4_1", 32, 20, _q4_1),
    6: BlockFormat("Q5_0", 32, 22, _q5_0),
    7: BlockFormat("Q5_1", 32, 24, _q5_1),
    8: BlockFormat("Q8_0", 32, 34, _q8_0),
    12: BlockFormat("Q4_K", 256, 144, _q4_k),
    13: BlockFormat("Q5_K", 256, 176, _q5_k),
    14: BlockFormat("Q6_K", 256, 210, _q6_k),
    30: BlockFormat("BF16", 1, 2, _bfloat16),
}
"""By the file's tensor type number."""
