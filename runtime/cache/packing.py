"""Where each code lies in memory: the one place that decides it.

The planner's KVFormat fixes names, shapes and dtypes of the cache's buffers, so their bytes;
this module fixes the order inside a row. Kernels and reference both follow it.

A head's row of D channels at b bits is row_bytes(D, b) bytes: codes in channel order, low bits
first.

    4 bits   byte 0            byte 1
             7  4 3  0         7  4 3  0
            +----+----+       +----+----+
            | c1 | c0 |       | c3 | c2 |  ...
            +----+----+       +----+----+

    2 bits   byte 0
             76 54 32 10
            +--+--+--+--+
            |c3|c2|c1|c0|  ...
            +--+--+--+--+

    8 bits   one code a byte.

Codes of 3, 5 and 6 bits lie in two parts: a row of their low 2 or 4 bits, then one of the bits
above (planner/formats/code_tables.py: planes), so that a lane takes whole words of either.

    6 bits   D/2 bytes of low nibbles, D/4 bytes of the two bits above them

A part that does not fill its last byte is padded with zero codes. Pairs (scale, offset) are
innermost in their buffers, 32 bits together.
"""

import torch
from torch import Tensor

from ...planner.formats.code_tables import planes


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 [..., D], each below 2^bits, -> packed rows uint8 [..., row_bytes(D, bits)]."""
    parts, shift = [], 0
    for part in planes(bits):
        parts.append(_pack((codes >> shift) & ((1 << part) - 1), part))
        shift += part
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def unpack(packed: Tensor, bits: int, dim: int) -> Tensor:
    """Packed rows uint8 [..., row_bytes(dim, bits)] -> codes uint8 [..., dim]."""
    codes, at, shift = None, 0, 0
    for part in planes(bits):
        width = -(-dim * part // 8)
        plane = _unpack(packed[..., at : at + width], part, dim) << shift
        codes = plane if codes is None else codes | plane
        at, shift = at + width, shift + part
    assert codes is not None  # every width has parts
    return codes


def _pack(codes: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return codes
    dim, per_byte = codes.shape[-1], 8 // bits
    if dim % per_byte:
        codes = torch.nn.functional.pad(codes, (0, per_byte - dim % per_byte))
    lanes = codes.unflatten(-1, (-1, per_byte))
    packed = lanes[..., 0].clone()
    for j in range(1, per_byte):
        packed |= lanes[..., j] << (j * bits)
    return packed


def _unpack(packed: Tensor, bits: int, dim: int) -> Tensor:
    if bits == 8:
        return packed
    mask = (1 << bits) - 1
    lanes = [(packed >> shift) & mask for shift in range(0, 8, bits)]
    return torch.stack(lanes, dim=-1).flatten(-2)[..., :dim]
