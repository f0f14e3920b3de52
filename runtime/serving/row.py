"""One sequence's part of a batch's cache, as a cache of its own.

A batch shares one clock, and a sequence that is shorter begins later: its padding is what lies
before it. So a sequence of L tokens can join at any time T >= L: it is prefilled alone, through
views on its row of every buffer, at positions [T - L, T), and takes part in the next step of the
batch. Nothing is copied and no padding is computed.
"""

from typing import Any

import torch

from ..cache.hybrid_layer import HybridLayer
from ..cache.kv_cache import PackedCache
from ..cache.layer_state import Clock
from ..cache.packed_layer import PackedLayer
from ..cache.state_layer import StateLayer


class RowClock(Clock):
    """The clock of one row, which may begin anywhere."""

    @property
    def padded(self) -> bool:
        return True

    def start_at(self, place: int) -> None:
        """Start a sequence at `place`: all before it is padding."""
        self.place(place)
        self.begin([place])


class RowCache(PackedCache):
    """Row `row` of `whole`: the same memory, with a clock that moves alone."""

    def __init__(self, whole: PackedCache, row: int) -> None:
        device = whole.clock.device.device
        self.clock: RowClock = RowClock(1, device)
        self.capacity = whole.capacity
        self.layers = [_row_of(layer, row, self.clock) for layer in whole.layers]
        self.layer_class_to_replicate = None
        self.offloading = False

    def begin(self, place: int) -> None:
        """Forget the row's sequence; the next one starts at `place`."""
        for layer in self.layers:
            layer.reset()
        self.clock.start_at(place)


@torch.inference_mode()
def clear(cache: PackedCache) -> None:
    """Fill the buffers with zeros: what no sequence wrote is hidden, but must be a number."""
    for state in cache.states:
        for tensor in (*state.key.tensors(), *state.value.tensors()):
            tensor.zero_()


def _row_of(layer: Any, row: int, clock: Clock) -> Any:
    """The part of a cache layer that one row has."""
    if isinstance(layer, HybridLayer):
        return layer.row_of(layer.state.row(row, clock), row)
    if isinstance(layer, StateLayer):
        return layer.row(row)
    if not isinstance(layer, PackedLayer):
        return layer
    return PackedLayer(layer.state.row(row, clock), layer.capacity, layer.leads)
