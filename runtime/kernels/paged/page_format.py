"""vLLM's pages of quantized keys and values with one scale a token and head, in plain torch.

`int4_per_token_head` and `int8_per_token_head` of vLLM 0.26 (v1/attention/ops/
int4_per_token_head.py and triton_reshape_and_cache_flash.py there). A layer's cache is bytes
[pages, heads, page tokens, row]; a row holds one token of one head:

    [K codes | K scale | V codes | V scale]

- 4 bits: two codes a byte, the even channel in the low nibble. Rows are rotated first: channels
  are negated by fixed random signs, then multiplied by the Hadamard matrix of ones and minus
  ones, so that norms grow by sqrt(D), and rounded to the model's type. x = (code - zero) * scale;
  the scale is float32 whose low 4 bits are the zero point, 0 to 15.
- 8 bits: signed codes, not rotated. x = code * scale, the scale is float32.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

SCALE_BYTES = 4
_LEAST_SCALE = 1e-6
_SIGN_SEED = 0x9E3779B9


@dataclass(frozen=True)
class PageFormat:
    """Codes of `bits` bits, 4 or 8, of heads of `dim` channels."""

    bits: int
    dim: int

    @classmethod
    def of(cls, kv_cache_dtype: str, dim: int) -> "PageFormat | None":
        """The format that vLLM calls `kv_cache_dtype`; None where it is none of these."""
        bits = {"int4_per_token_head": 4, "int8_per_token_head": 8}.get(kv_cache_dtype)
        if bits is None or dim % 16 or (bits == 4 and dim & (dim - 1)):
            return None
        return cls(bits, dim)

    @property
    def rotated(self) -> bool:
        return self.bits == 4

    @property
    def side_bytes(self) -> int:
        """Bytes of one token's keys, or values, of one head, with their scale."""
        return self.dim * self.bits // 8 + SCALE_BYTES

    @property
    def row_bytes(self) -> int:
        return 2 * self.side_bytes

    @property
    def query_factor(self) -> float:
        """What a product of rotated queries and keys is too large by: a factor of the scaling."""
        return 1 / self.dim if self.rotated else 1.0


@functools.lru_cache(maxsize=64)
def signs(dim: int, device: torch.device) -> Tensor:
    """The signs of the rotation, float32 [dim] of 1 and -1."""
    generator = torch.Generator().manual_seed(_SIGN_SEED)
    return (2 * torch.bernoulli(torch.full((dim,), 0.5), generator=generator) - 1).to(device)


@functools.lru_cache(maxsize=64)
def hadamard(dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Sylvester's matrix [dim, dim] of ones and minus ones; `dim` is a power of two."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < dim:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix.to(device, dtype)


def rotate(x: Tensor) -> Tensor:
    """[..., D] -> signs, then Hadamard, in float32, rounded to x's type."""
    dim = x.shape[-1]
    wide = x.float() * signs(dim, x.device)
    return (wide @ hadamard(dim, torch.float32, x.device)).to(x.dtype)


def rotate_back(x: Tensor) -> Tensor:
    """The inverse of `rotate`, in x's type."""
    dim = x.shape[-1]
    wide = x.float() @ hadamard(dim, torch.float32, x.device)
    return (wide * signs(dim, x.device) / dim).to(x.dtype)


def pack(x: Tensor, form: PageFormat) -> Tensor:
    """Keys or values [..., D], not yet rotated -> bytes [..., side_bytes]."""
    if form.bits == 8:
        wide = x.float()
        scale = (wide.abs().amax(-1, keepdim=True) / 127).clamp(min=_LEAST_SCALE)
        codes = _round_away(wide * (1 / scale), -128, 127).to(torch.int8).view(torch.uint8)
        return torch.cat([codes, scale.view(torch.uint8)], -1)
    wide = rotate(x).float()
    low, high = wide.amin(-1, keepdim=True), wide.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=_LEAST_SCALE)
    zero = _round_away(-low / scale, 0, 15)
    codes = _round_away(wide * (1 / scale) + zero, 0, 15).to(torch.uint8)
    word = (scale.view(torch.int32) & -16) | zero.to(torch.int32)
    return torch.cat([codes[..., ::2] | codes[..., 1::2] << 4, word.view(torch.uint8)], -1)


def unpack(rows: Tensor, form: PageFormat) -> Tensor:
    """Bytes [..., side_bytes] -> float32 [..., D], rotated where the format is."""
    codes, word = rows[..., :-SCALE_BYTES], rows[..., -SCALE_BYTES:].contiguous()
    if form.bits == 8:
        return codes.view(torch.int8).float() * word.view(torch.float32)
    bits = word.view(torch.int32)
    scale, zero = (bits & -16).view(torch.float32), (bits & 15).float()
    return (torch.stack([codes & 15, codes >> 4], -1).flatten(-2).float() - zero) * scale


def _round_away(x: Tensor, low: float, high: float) -> Tensor:
    """To the nearest integer, halves away from zero, within [low, high]."""
    return torch.trunc(x + torch.copysign(torch.full_like(x, 0.5), x)).clamp(low, high)
