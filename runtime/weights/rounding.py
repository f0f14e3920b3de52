"""Rounding 16-bit matrices to nearest: whole where they lie, or a block of rows at a time on a GPU.

What is rounded for a GPU lies in the host's memory, so that the 16-bit weights never lie on the
device. There rounding is many passes over each matrix, by threads that wait for each other where
the processor has other work: 0.5 billion parameters took more than 88 s so. A block of rows goes to
the device, is rounded there and comes back. The bits are the same: every operation is exact, or
rounded as IEEE says.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import torch

from . import layout
from .awq_format import PACK, round_to_nearest, with_zeros
from .layout import Packed4, Packed8

BLOCK = 2**24
"""Elements at once on a device: some 300 MB with all that rounding them needs."""
P = TypeVar("P", Packed4, Packed8)


def rounded4(weight: torch.Tensor, on: torch.device | None = None) -> Packed4:
    """`weight` [out, in] in 4 bits by groups of 128, without a search, where it lies; worked out
    `on` another device if one is given. Raises BadInput for a shape that does not fit."""
    return _in_blocks(_four, weight, on)


def rounded8(weight: torch.Tensor, on: torch.device | None = None) -> Packed8:
    """The same in 8 bits, a scale for each output."""
    return _in_blocks(layout.quantize8, weight, on)


def _four(weight: torch.Tensor) -> Packed4:
    rounded = round_to_nearest(with_zeros(weight, layout.BLOCK4), layout.BLOCK4)
    layout.check_shape(4, rounded.in_features, rounded.out_features)
    return layout.from_awq(rounded)


def _in_blocks(
    round_rows: Callable[[torch.Tensor], P], weight: torch.Tensor, on: torch.device | None
) -> P:
    """Outputs are the last dimension of all that is packed."""
    if on is None:
        return round_rows(weight)
    rows = max(BLOCK // weight.shape[1] // PACK, 1) * PACK
    parts = [round_rows(block.to(on)) for block in weight.split(rows)]
    kind = type(parts[0])
    return kind(
        *(
            torch.cat([getattr(part, field.name).to(weight.device) for part in parts], dim=-1)
            for field in fields(kind)
        )
    )
