"""Retention from noise: the share of a score that is kept.

    cache    1 / (1 + D^gamma)   D: noise power of all components at the model's scale, 1 where
                                 half of the score is gone; flat near D = 0, a cliff near D = 1
    weights  1 / (1 + W)         small losses, proportional to the noise
    both     their product; ends of intervals, whose errors are apart, in quadrature

which is exp(-softplus(gamma log D)): one at no noise, falling for every D, zero in the limit.
"""

from collections.abc import Collection

import numpy as np

from ..light_dataclass import dataclass
from .formula import Floats

UNKNOWN_FIRST, UNKNOWN_LAST = 0.35, 0.25
"""Where nothing is known, the share of the key-outlier noise in the first and in the last layer
(Qwen2.5-7B's largest key biases are in layers 0 and 27, Qwen3-32B's outliers in layer 0); the
rest is spread evenly."""


@dataclass(frozen=True, slots=True)
class OutlierLayers:
    """Layers known to carry a model's key outliers, and their share of that noise.

    `keys` and `values` are each layer's measured share of what quantizing the model's keys, and
    its values, disturbs; empty where no calibration probed the layers.
    """

    layers: tuple[int, ...] = ()
    share: float = 0.0
    keys: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ProtectedShares:
    """Share of each component's noise that comes from protected layers."""

    plain: float
    outlier: float
    value: float


LEAST_KEPT = 1e-300
"""Of a score, so that it has a logarithm."""
LOST = 1e30
"""Noise beyond which nothing is left that could be told apart."""


def cache_retention(noise: Floats, gamma: Floats | float) -> Floats:
    """Share of the score kept under cache noise `noise`; exactly 1 at 0."""
    return 1.0 / (1.0 + np.minimum(noise, LOST) ** gamma)


def weight_retention(noise: Floats) -> Floats:
    """Share of the score kept under weight noise; exactly 1 at 0."""
    return 1.0 / (1.0 + noise)


def kept_by_both(cache: Floats, weights: Floats, middle: int) -> Floats:
    """What quantized cache and quantized weights leave together, [ends, ...], of what each leaves
    at the ends of its interval; end number `middle` is the prediction.

    What tables make of a cache and what a model's weights lose in 4 bits are apart: an end's
    distances from the predictions, in logarithms, are added in quadrature. Both ends still rise
    with every value that they are made of.
    """
    logs = [np.log(np.maximum(kept, LEAST_KEPT)) for kept in (cache, weights)]
    of_cache, of_weights = (log - log[middle] for log in logs)
    away = np.copysign(np.hypot(of_cache, of_weights), of_cache + of_weights)
    kept: Floats = cache[middle] * weights[middle] * np.exp(away)
    return kept


def protected_shares(
    known: OutlierLayers, layers: int, protected: Collection[int]
) -> ProtectedShares:
    """Where the noise of a model of `layers` layers sits: as it was measured; else evenly, but key
    outliers in few."""
    inside = {layer for layer in protected if layer < layers}
    plain = len(inside) / max(layers, 1)
    if known.keys:
        # shares are rounded: all of them may come out at more than the whole
        sums = (sum(part[i] for i in inside) for part in (known.keys, known.values))
        keys, values = (min(total, 1.0) for total in sums)
        return ProtectedShares(plain, keys, values)
    if known.layers:
        named = len(inside & set(known.layers)) / len(known.layers)
        return ProtectedShares(
            plain, min(known.share * named + (1 - known.share) * plain, 1.0), plain
        )
    ends = UNKNOWN_FIRST * (0 in inside) + UNKNOWN_LAST * (layers - 1 in inside)
    outlier = ends + (1 - UNKNOWN_FIRST - UNKNOWN_LAST) * plain
    return ProtectedShares(plain, min(outlier, 1.0), plain)
