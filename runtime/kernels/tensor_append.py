"""Packing what shares one pair a tensor: torch operations on the device's own positions.

The pair of an append spans all heads and tokens that it packs, which programs of a kernel that each
see a tile cannot agree on without a pass before. Appends of chunks are small beside attention, so
torch does it (one token has a kernel: tensor_token.py), by runtime/cache/quantize.py itself. How
many tokens are packed depends on the length, which only the device knows while a CUDA graph is
replayed: as many rows as tokens come are worked on, and rows that are not to be packed yet are
written back as they were. Of more rows than the ring has slots, only as many are written, each slot
once: the last ones that are due, and those behind them.
"""

import torch
from torch import Tensor

from ..cache.layer_state import LayerState, SideState
from ..cache.packing import pack
from ..cache.quantize import quantize


def pack_tensor(side: SideState, x: Tensor, state: LayerState) -> None:
    """Pack what an append of x [B, H, n, D], which the clock already counts, makes due."""
    if not side.values.shape[2]:
        return  # all that fits stays in 16 bits
    assert side.scale is not None  # quantized sides have pairs
    form, n = side.form, x.shape[2]
    total = state.clock.device.long()
    waiting = form.sinks + form.buffered
    places = (total - n - waiting).clamp(min=0) + torch.arange(n, device=x.device)  # after sinks
    due = places < (total - waiting).clamp(min=0)
    fresh = places + form.sinks - (total - n)  # index in x; negative where a token has waited
    taken = x.index_select(2, fresh.clamp(0, n - 1))
    if side.residual is not None:
        held = side.residual.index_select(2, places % side.residual.shape[2])
        taken = torch.where((fresh >= 0)[:, None], taken, held)
    real = due[None]
    if state.clock.padded:
        real = real & (places + form.sinks >= state.clock.starts[:, None])
    codes, pairs = quantize(taken, form, real)
    slots = side.values.shape[2]
    if n > slots:
        kept = (due.sum() - slots).clamp(min=0) + torch.arange(slots, device=x.device)
        codes, pairs = codes.index_select(2, kept), pairs.index_select(1, kept)
        places, due = places[kept], due[kept]
    _replace(side.values, 2, places, due[:, None], pack(codes, form.bits))
    _replace(side.scale, 1, places, due[:, None], pairs)


def _replace(ring: Tensor, axis: int, places: Tensor, due: Tensor, rows: Tensor) -> None:
    """Write `rows` at `places` along a ring's axis, where they are due [n, 1]."""
    slots = places % ring.shape[axis]
    ring.index_copy_(axis, slots, torch.where(due, rows, ring.index_select(axis, slots)))
