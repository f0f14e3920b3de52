"""Where each code lies in memory: the one place that decides it.

The planner's KVFormat fixes names, shapes and dtypes of the cache's buffers, so their bytes;
this module fixes the order inside a row. Kernels and reference both follow it.

A head's row of D channels at b bits is ceil(D*b/8) bytes: codes in channel order, low bits first.

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

A row that does not fill its last byte is padded with zero codes. Pairs (scale, offset) are
innermost in their buffers, 32 bits together.
"""

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 [..., D], each below 2^bits, -> packed rows uint8 [..., ceil(D*bits/8)]."""
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


def unpack(packed: Tensor, bits: int, dim: int) -> Tensor:
    """Packed rows uint8 [..., ceil(dim*bits/8)] -> codes uint8 [..., dim]."""
    if bits == 8:
        return packed
    mask = (1 << bits) - 1
    lanes = [(packed >> shift) & mask for shift in range(0, 8, bits)]
    return torch.stack(lanes, dim=-1).flatten(-2)[..., :dim]
