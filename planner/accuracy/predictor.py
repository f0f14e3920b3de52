"""The arithmetic of predicted accuracy: one fit's coefficients, evaluated with numpy.

    retention = floor + (1 - floor) * (first + (1 - first) / (1 + D^gamma)) * 1 / (1 + W)
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
from .formula import OUTLIER, Floats, FormatArrays, context_factor, noise, weight_noise
from .measured_configs import MeasuredConfigurations
from .model_features import Features
from .model_sensitivity import FittedSensitivities, ModelSensitivity
from .retention import cache_retention, kept_by_both, weight_retention
from .task_kinds import ScoredTask, task_group

EXACT_KIND = "retrieval"
"""The kind whose noise grows faster with the context, and with the baseline's own decline."""
FEW_BITS_WIDTH = 0.625
"""Half-width of the log noise of weights below 4 bits, in their log noise above 4 bits': it is
taken from the divergence of one model's mixes, and methods of the same bits differ as much (GPTQ in
2 bits leaves nothing of Mistral-7B, AutoRound three quarters). Below 1, so that fewer bits are
worse at both ends."""
_NO_SHAPE = {"steepness": 0.0, "weight": 0.0, "floor": 0.0, "misfit": 0.0, "weight_misfit": 0.0}
"""Of a kind that no row was about: as the reference kind, without a floor."""

_GAINS = (
    "rotation_plain",
    "rotation_key",
    "rotation_value",
    "smoothing",
    "channel_plain",
    "channel_outlier",
    "residual",
    "weight_8bit",
)
_COSTS = ("tile", "tensor", "context", "context_retrieval")


class Predictor:
    """Evaluates the coefficients that `calibration.fit` wrote as JSON."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.payload = payload
        self.models = FittedSensitivities(payload)
        self.measured = MeasuredConfigurations(payload.get("measured", []), payload.get("broken"))
        self.level = float(payload["level"])
        own = payload.get("own_noise")
        # fits of before lack it
        self._between_sources = float(payload["spread"].get("source", 0.0))
        self._kind_z: Mapping[str, float] = (own or {}).get("kind_z", {})
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
        sensitivity: ModelSensitivity,
        formats: FormatArrays,
        protected: FormatArrays,
        shares: Floats,
        context: Floats | float,
        weight_bits: Floats,
        kinds: Sequence[str],
        ends: Sequence[float],
        offset: Floats | float = 0.0,
    ) -> tuple[Floats, Floats]:
        """What F cache formats leave of a score [ends, kinds, F] and what W weight formats do
        [ends, kinds, W]; a configuration's retention is `above_floor` of what `together` makes.

        `offset` is log noise that a task has beside its kind's [F] (`task_offset`).

        `protected` are the formats as protected layers keep them, `shares` [3, F] the part of
        each component that sits in those layers; `ends` are values of z.
        """
        if sensitivity.own and self.own is not None:
            own, fraction = self.own, sensitivity.features.attention_fraction
            inputs = CacheUse.of(formats, protected, shares, context, fraction)
            parts = own.components(inputs)
            worst = parts
            if formats.read_worst is not None:
                worst = own.components(
                    CacheUse.of(formats.worst, protected.worst, shares, context, fraction)
                )
            wide = {kind: self._own_width(kind, sensitivity.z) for kind in kinds}
            cache = [
                [
                    own.cache_retention(
                        worst if z > 0 else parts, inputs.tokens, kind, z * wide[kind]
                    )
                    for kind in kinds
                ]
                for z in ends
            ]
            weights = [
                [own.weight_retention(weight_bits, kind, z * wide[kind]) for kind in kinds]
                for z in ends
            ]
            return np.array(cache), np.array(weights)
        tokens = np.asarray(context, dtype=float)
        if sensitivity.features.qkv_bias:
            formats, protected = formats.with_biases, protected.with_biases
        lost = self._lost_on_biases(sensitivity.features, formats)
        first = 0.0 if formats.exact_prompt is None else formats.exact_prompt
        cache, weights = [], []
        for z in ends:
            coefficients = self.coefficients(z)
            unit = noise(formats.worst if z > 0 else formats, coefficients, tokens)
            unit[OUTLIER] *= lost
            if shares.any():
                unit = unit * (1.0 - shares) + noise(protected, coefficients, tokens) * shares
            unit = unit * sensitivity.features.attention_fraction * np.exp(offset)
            cache.append(
                [
                    self._cache_retention(sensitivity, unit, coefficients, tokens, k, z, first)
                    for k in kinds
                ]
            )
            weights.append([self._weight_retention(sensitivity, weight_bits, k, z) for k in kinds])
        return np.array(cache), np.array(weights)

    def together(
        self, sensitivity: ModelSensitivity, cache: Floats, weights: Floats, middle: int
    ) -> Floats:
        """What `retention` says of cache and weights as one, [ends, ...], of which end number
        `middle` is the prediction. Of a model's own noise, and of a size that nobody measured, one
        cause moves both: their product."""
        if (sensitivity.own and self.own is not None) or np.any(sensitivity.other_size):
            return cache * weights
        return kept_by_both(cache, weights, middle)

    def _lost_on_biases(self, features: Features, formats: FormatArrays) -> Floats | float:
        """By which key outliers that are floats lose more than integers' do [F]."""
        if formats.float_keys is None or not features.loses_floats:
            return 1.0
        more: Floats = np.exp(self.payload.get("float_bias", 0.0) * formats.float_keys)
        return more

    def _own_width(self, kind: str, z: float) -> float:
        """How much wider the model's own intervals are for this kind of task than for all."""
        return self._kind_z.get(kind, z) / z if z > 0 else 1.0

    def _cache_retention(
        self,
        sensitivity: ModelSensitivity,
        unit: Floats,
        coefficients: Mapping[str, float],
        tokens: Floats,
        kind: str,
        z: float,
        first: Floats | float,
    ) -> Floats:
        """What is left by cache noise `unit` [3, F], at unit model scale, on one kind of task;
        `first` [F] is 1 where the prompt, and so the first token, knows no noise."""
        shape = self._shape(kind)
        spread = np.hypot(sensitivity.spread[:3], shape["misfit"])
        if sensitivity.of_tables:
            spread = np.hypot(spread, self._between_sources)
        scale = np.exp(sensitivity.mean[:3] + z * spread)
        slope = coefficients["context"]
        if kind == EXACT_KIND:
            slope += coefficients["context_retrieval"]
        mean, sd = self.payload["kinds"].get(kind, (0.0, 0.0))
        total = (scale @ unit) * context_factor(tokens, slope) * np.exp(mean + z * sd)
        steep = self.gamma * float(np.exp(shape["steepness"]))
        return above_floor(cache_retention(total, steep), shape.get("first", 0.0) * first)

    def _weight_retention(
        self, sensitivity: ModelSensitivity, bits: Floats, kind: str, z: float
    ) -> Floats:
        """What is left by weight formats alone, one for each entry of `bits`.

        The lower end allows for what 4-bit weights lose beside the noise (a task that one model
        cannot do any more): as much where 1 % is predicted to be lost as at 4 %.
        """
        unit = weight_noise(bits, self.coefficients(z)["weight_8bit"])
        shape = self._shape(kind)
        scale = sensitivity.mean[3] + shape["weight"]
        below = FEW_BITS_WIDTH * np.log(np.maximum(unit, 1.0))
        off = np.sign(z) * np.hypot(z * sensitivity.spread[3], below)
        kept = weight_retention(unit * np.exp(scale + off))
        misfit = shape.get("weight_misfit", 0.0)  # fits of before lack it
        if z <= 0 or not misfit:
            return kept
        middle = weight_retention(unit * float(np.exp(scale)))
        beside = z * misfit * np.minimum(unit, 1.0) ** 2  # 8 bits lose nothing of the kind
        lower: Floats = np.maximum(middle - np.hypot(middle - kept, beside), 0.0)
        return lower

    def _shape(self, kind: str) -> Mapping[str, float]:
        shape: Mapping[str, float] = self.payload["kind_shapes"].get(kind, _NO_SHAPE)
        return shape

    def floor(
        self, sensitivity: ModelSensitivity, kind: str, scored: ScoredTask | None = None
    ) -> float:
        """What no noise takes away: chance over the baseline, of a task or usual for its kind. A
        model's own noise was fitted without."""
        if sensitivity.own and self.own is not None:
            return 0.0
        return self._shape(kind)["floor"] if scored is None else scored.floor

    def task_offset(self, kind: str, scored: ScoredTask | None) -> float:
        """Log noise that a task has beside its kind's: its own in the rows, and on exact retrieval
        what the unquantized model's own score says."""
        if scored is None:
            return 0.0
        own = self.payload["tasks"].get(f"{kind}:{task_group(scored.task)}", 0.0)
        decline = float(np.exp(self.payload["coefficients"]["decline"][0]))
        return float(own + decline * scored.difficulty * (kind == EXACT_KIND))


def above_floor(kept: Floats, floor: Floats | float) -> Floats:
    """Retention of what is kept of a score above chance."""
    return floor + (1.0 - floor) * kept
