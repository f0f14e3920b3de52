"""Which layers a model can least afford to quantize, and the protected layers that follow from it.

A probe (layer_probe.py) quantizes the keys, or the values, of one layer at a time and measures how
far the next-token distributions move. Small disturbances of different layers add up, so a layer's
share of the sum is the share of the loss that protecting it would save. Published models lose most
of their keys' accuracy in few layers (Qwen2.5-7B in 2 of 28), and which ones differs by model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...planner.accuracy.key_noise.attention_noise import AttentionNoise
from ...planner.accuracy.retention import OutlierLayers
from ..records.record_file import LAYERS, Record

CARRIED = (0.5, 0.9)
"""Shares of the whole disturbance that a set of protected layers is to carry: a set for each."""
MOST = 0.25
"""Share of the layers that a set may be: beyond it, no few layers stand out."""


@dataclass(frozen=True)
class Sensitivity:
    """KL in nats that quantizing one layer's keys, and its values, costs; 0 for a layer that
    caches nothing."""

    keys: tuple[float, ...]
    values: tuple[float, ...]
    attention: AttentionNoise | None = None
    """What each format makes of the attention (read_attention.py)."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self | None:
        """What a calibration's rows say; None where its model was not probed."""
        for record in records:
            if record.task == LAYERS and record.outcome == "ok":
                layers = record.probed_layers
                # a KL is never negative: what rows have below 0 is rounding
                costs = tuple(max(cost, 0.0) for cost in record.items)
                rest = costs[2 * layers :]
                attention = AttentionNoise.of(rest, layers) if rest else None
                return cls(costs[:layers], costs[layers : 2 * layers], attention)
        return None

    @property
    def items(self) -> tuple[float, ...]:
        """As its row keeps it."""
        return (*self.keys, *self.values, *(self.attention.flat if self.attention else ()))

    def proposals(self) -> tuple[tuple[int, ...], ...]:
        """Sets of layers worth more bits, the smaller first: the fewest that carry each of
        CARRIED, unless that takes more than MOST of the caching layers."""
        cost = np.add(self.keys, self.values)
        caching, total = int((cost > 0).sum()), float(cost.sum())
        order = np.argsort(-cost, kind="stable")
        carried = np.cumsum(cost[order])
        layer_sets = []
        for share in CARRIED:
            count = int(np.searchsorted(carried, share * total)) + 1
            if total > 0 and count <= MOST * caching:
                layer_sets.append(tuple(sorted(int(layer) for layer in order[:count])))
        return tuple(dict.fromkeys(layer_sets))

    def carried(self, layers: Iterable[int]) -> float:
        """The share of the whole disturbance that sits in `layers`; 0 where there is none."""
        cost = np.add(self.keys, self.values)
        total = float(cost.sum())
        return float(cost[list(layers)].sum()) / total if total > 0 else 0.0

    @property
    def outliers(self) -> OutlierLayers:
        """As the planner's arithmetic takes it."""
        shares = self.payload()
        return OutlierLayers(keys=tuple(shares["keys"]), values=tuple(shares["values"]))

    def payload(self) -> dict[str, Any]:
        """As the profile carries it: shares by layer, and the sets of layers to protect."""
        return {
            "keys": _shares(self.keys),
            "values": _shares(self.values),
            "protect": [list(layers) for layers in self.proposals()],
        }


def _shares(costs: tuple[float, ...]) -> list[float]:
    total = sum(costs)
    return [round(cost / total, 6) if total > 0 else 0.0 for cost in costs]
