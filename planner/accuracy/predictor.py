"""The arithmetic of predicted accuracy: one fit's coefficients, evaluated with numpy.

    retention = 1 / (1 + D^gamma) * 1 / (1 + W)
    D = kind * context * sum over components of exp(model scale) * noise of the format

Every number has three values: z = 0 is the prediction; at z > 0 all model scales, the task
kind and what the format's measures are worth move together to their pessimistic end, at z < 0
to their optimistic end. Each end is the same arithmetic with other positive coefficients, so
more bits or finer groups never lower any of the three.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .calibrated_noise import CacheUse, CalibratedNoise
from .formula import Floats, Formats, context_factor, noise, weight_noise
from .measured_configs import MeasuredConfigurations
from .model_sensitivity import Effects, Sensitivities
from .retention import cache_retention, power_of, weight_retention

_GAINS = (
    "rotation_key",
    "rotation_value",
    "smoothing",
    "channel_plain",
    "channel_outlier",
    "residual",
    "weight_8bit",
)
_COSTS = ("tile", "tensor", "context")


class Predictor:
    """Evaluates the coefficients that `calibration.fit` wrote as JSON."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.payload = payload
        self.models = Sensitivities(payload)
        self.measured = MeasuredConfigurations(payload.get("measured", []), payload.get("broken"))
        self.level = float(payload["level"])
        own = payload.get("own_noise")
        self.own = None if own is None else CalibratedNoise(own["values"], dict(own["formats"]))
        self.gamma = float(np.exp(payload["coefficients"]["gamma"][0]))

    def coefficients(self, z: float) -> dict[str, float]:
        """Format coefficients, `z` standard deviations towards the pessimistic side."""
        signs = dict.fromkeys(_GAINS, -1.0) | dict.fromkeys(_COSTS, 1.0)
        return {
            name: float(np.exp(mean + signs.get(name, 0.0) * z * sd))
            for name, (mean, sd) in self.payload["coefficients"].items()
        }

    def retention(
        self,
        effects: Effects,
        formats: Formats,
        protected: Formats,
        shares: Floats,
        context: Floats | float,
        weight_bits: Floats,
        kinds: Sequence[str],
        ends: Sequence[float],
    ) -> tuple[Floats, Floats]:
        """Retention left by F cache formats [ends, kinds, F] and by W weight formats
        [ends, kinds, W]; a configuration's is their product.

        `protected` are the formats as protected layers keep them, `shares` [3, F] the part of
        each component that sits in those layers; `ends` are values of z.
        """
        if effects.own and self.own is not None:
            inputs = CacheUse.of(
                formats, protected, shares, context, effects.features.attention_fraction
            )
            parts, own = self.own.components(inputs), self.own
            cache = [
                [own.cache_retention(parts, inputs.tokens, kind, z) for kind in kinds] for z in ends
            ]
            weights = [[own.weight_retention(weight_bits, kind, z) for kind in kinds] for z in ends]
            return np.array(cache), np.array(weights)
        cache, weights = [], []
        for z in ends:
            noise = self._noise(effects, formats, protected, shares, context, z)
            cache.append([self._cache_retention(noise, kind, z) for kind in kinds])
            weights.append([self._weight_retention(effects, weight_bits, z)] * len(kinds))
        return np.array(cache), np.array(weights)

    def _noise(
        self,
        effects: Effects,
        formats: Formats,
        protected: Formats,
        shares: Floats,
        context: Floats | float,
        z: float,
    ) -> Floats:
        """Cache noise power of F formats at a model's scale, before the task kind: [F]."""
        coefficients = self.coefficients(z)
        tokens = np.asarray(context, dtype=float)
        unit = noise(formats, coefficients, tokens)
        if shares.any():
            unit = unit * (1.0 - shares) + noise(protected, coefficients, tokens) * shares
        scale = np.exp(effects.mean[:3] + z * effects.spread[:3])
        total: Floats = scale @ unit
        growth = context_factor(tokens, coefficients["context"])
        return total * growth * effects.features.attention_fraction

    def _weight_retention(self, effects: Effects, bits: Floats, z: float) -> Floats:
        """Retention left by weight formats alone, one for each entry of `bits`."""
        unit = weight_noise(bits, self.coefficients(z)["weight_8bit"])
        return weight_retention(unit * float(np.exp(effects.mean[3] + z * effects.spread[3])))

    def _cache_retention(self, noise: Floats, kind: str, z: float) -> Floats:
        """Retention left by cache noise alone on one kind of task."""
        mean, sd = self.payload["kinds"].get(kind, (0.0, 0.0))
        return cache_retention(noise * float(np.exp(mean + z * sd)), power_of(kind, self.gamma))
