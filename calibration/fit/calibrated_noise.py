"""The most probable own noise of one model, given its rows and what the shared fit expects.

The prior is the shared fit: its coefficients and this model's predicted scales, each with the
spread that models have around them. Penalized least squares as in regression.py, with less slack:
rows of one model on one machine share their prompts and kernels, so what the formula cannot say
is all that is left between them.

How wide intervals must be is taken from configurations that were left out (split conformal): the
shift of log noise that would have covered LEVEL of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ...planner.accuracy.calibrated_noise import (
    BOUND,
    KIND_EFFECTS,
    OF_WEIGHTS,
    SCALES,
    SLOPES,
    TEXT_KIND,
    CacheUse,
    CalibratedNoise,
    names_of,
)
from ...planner.accuracy.formula import COEFFICIENTS, Floats
from ...planner.accuracy.interactions import TABLES
from ...planner.accuracy.model_features import Features
from ...planner.accuracy.model_sensitivity import ModelSensitivity
from ...planner.accuracy.predictor import Predictor
from ...planner.accuracy.retention import cache_retention
from .accuracy_rows import KINDS, AccuracyRow
from .least_squares import deviation, distance
from .mixed_effects import REFERENCE_KIND, KnownModel
from .regression import formats_and_shares

FLOOR = 0.002
"""Standard deviation of a score beside sampling: runs differ by kernels alone."""
MISFIT = 0.4
"""Standard deviation of log noise that neither formula nor table explains."""
HUBER = 3.0
BETWEEN_MODELS = 0.5
"""Spread of a coefficient's logarithm between models, beside what the shared fit does not know."""
SLOPE_PRIORS = {
    "group_key": (0.1, 1.0),
    "group_value": (0.1, 1.0),
    "span_key": (0.8, 0.8),
    "span_value": (0.8, 0.8),
}
"""Median, and sd of its logarithm; the others are the shared fit's own."""
NOT_PUBLISHED = {"smoothing": 1.5, "tile": 1.5, "tile_value": 1.5}
"""Spreads of what no published row speaks of: there the shared fit has no more than a belief, which
a model's own run overrules."""
FAR = 3.0
"""Most that a size beyond the published rows adds to the spread of the scale of keys that were read
from a checkpoint, in log noise."""
EFFECT_SD = {"kind": 0.5, "value": 0.5, "gamma": 0.3, "weight": 0.7, "below": 0.3}
TEXT_STEEPNESS = (0.33, 0.1)
"""Mean and sd of the log steepness of the text's loss: between proportional to the noise (0) and as
tasks lose (0.73), where fits to all rows of three pretrained models are. Few runs do not tell."""
FREE_SD = 0.5
BITS_SD = 0.4
FORMAT_SD = 0.5
"""Spread of the tables' entries (of bits, of all else), and of what is a format's own."""
MEASURED = {"plain": (-1.7, 1.0), "outlier": (0.0, 1.0), "value": (-2.3, 0.7)}
"""Mean and sd of the log scales of noise that was measured in the model's own attention: of keys,
of keys beyond the loss of a layer beside that, and of values."""
MEASURED_SD, MEASURED_FORMAT_SD = 0.15, 0.25
"""Spread of the tables' entries there, and of what is a format's own."""
MEASURED_TEXT_STEEPNESS = (0.6, 0.15)
"""The same as TEXT_STEEPNESS there: fits to all that calibrations would have measured of four
pretrained models ask for 0.60 to 0.72 (profiles/calibrations/spread_*.jsonl)."""
STEP = 1e-4
"""Of a parameter, in the differences that its column of derivatives is."""


Codes = NDArray[np.int64]


@dataclass(frozen=True)
class NoisePrior:
    """Means and standard deviations of all parameters."""

    names: tuple[str, ...]
    mean: Floats
    sd: Floats


def prior_of(shipped: Predictor, sensitivity: ModelSensitivity) -> NoisePrior:
    """What the shared fit expects of a model with these sensitivity."""
    payload, mean, sd = shipped.payload, {}, {}
    for name in COEFFICIENTS:
        mean[name], spread = payload["coefficients"][name]
        sd[name] = float(np.hypot(spread, BETWEEN_MODELS))
    for name in SLOPES:
        if name in SLOPE_PRIORS:
            median, sd[name] = SLOPE_PRIORS[name]
            mean[name] = float(np.log(median))
        else:
            mean[name], sd[name] = mean[name.split("_")[0]], BETWEEN_MODELS * 2
    for name, value, spread in zip(SCALES, sensitivity.mean, sensitivity.sd, strict=True):
        mean[f"scale:{name}"], sd[f"scale:{name}"] = float(value), float(spread)
    if sensitivity.features.ranges is not None:
        # no covariate moves keys that were read with the size, so its doubt is theirs
        other = min(float(np.max(sensitivity.other_size)), FAR)
        sd["scale:outlier"] = float(np.hypot(sd["scale:outlier"], other))
    sd |= NOT_PUBLISHED
    attention = sensitivity.features.attention
    if attention is not None:
        for name, (center, spread) in MEASURED.items():
            mean[f"scale:{name}"], sd[f"scale:{name}"] = center, spread
    steepness = TEXT_STEEPNESS if attention is None else MEASURED_TEXT_STEEPNESS
    mean[f"gamma:{TEXT_KIND}"], sd[f"gamma:{TEXT_KIND}"] = steepness
    names = names_of(KINDS, REFERENCE_KIND)
    for name in names:
        effect, _, kind = name.partition(":")
        if name in mean:
            continue
        if kind in KINDS:
            shared = payload["kinds"].get(kind, (0.0, 0.0)) if effect == "kind" else (0.0, 0.0)
            mean[name], sd[name] = shared[0], float(np.hypot(shared[1], EFFECT_SD[effect]))
        else:
            free = BITS_SD if effect.endswith("_bits") else FREE_SD
            mean[name], sd[name] = 0.0, free if attention is None else MEASURED_SD
    return NoisePrior(
        tuple(names), np.array([mean[n] for n in names]), np.array([sd[n] for n in names])
    )


def as_fitted(features: Features, kinds: Iterable[str]) -> Features:
    """Features of a model as rows of these kinds of tasks are fitted: without what its attention
    said where the text alone was measured, whose loss near none is not as steep as a task's, so
    that picks would promise too much (docs/accuracy_calibration.md)."""
    return features if set(kinds) - {TEXT_KIND} else replace(features, attention=None)


class NoiseRows:
    """Rows of one model as arrays."""

    def __init__(self, rows: Sequence[AccuracyRow], model: KnownModel) -> None:
        self.rows = tuple(rows)
        formats, shares = formats_and_shares(rows, [model] * len(rows))
        bits = np.array([r.protected_bits for r in rows])
        self.inputs = CacheUse.of(
            formats,
            formats.with_bits(bits, bits),
            shares,
            np.array([float(r.context) for r in rows]),
            model.features.attention_fraction,
        )
        self.weight_bits: Floats = np.array([r.weight_bits for r in rows])
        self.observed: Floats = np.array([r.retention for r in rows])
        self.sd: Floats = np.hypot([r.sd for r in rows], FLOOR)
        self.kinds = {
            kind: np.array([r.kind == kind for r in rows])
            for kind in dict.fromkeys(r.kind for r in rows)
        }
        self.codes = np.unique(self.inputs.layers[0].codes)
        """Codes of the formats of all rows."""

    def predict(
        self, noise: CalibratedNoise, shift: float = 0.0, parts: Floats | None = None
    ) -> Floats:
        """Retention of every row, with log noise moved by `shift`. `parts` are the noise's
        components for these rows where the caller has them."""
        parts = noise.components(self.inputs) if parts is None else parts
        tokens = self.inputs.tokens
        retention: Floats = np.empty(len(self.rows))
        for kind, rows in self.kinds.items():
            cache = noise.cache_retention(parts[:, rows], tokens[rows], kind, shift)
            retention[rows] = cache * noise.weight_retention(self.weight_bits[rows], kind, shift)
        return retention

    def slopes(self, noise: CalibratedNoise, codes: Codes | None = None) -> Floats:
        """d retention / d entry, [N, entries], for all entries of the tables in their order, then
        for the deviations of the formats with these sorted `codes` (None: of all rows)."""
        codes = self.codes if codes is None else codes
        parts, tokens = noise.components(self.inputs), self.inputs.tokens
        by_log = np.zeros_like(parts)
        for kind, rows in self.kinds.items():
            scaled = parts[:, rows] * noise.kind_factors(kind, tokens[rows])
            total, gamma = scaled.sum(axis=0), noise.gamma(kind)
            cache = cache_retention(total, gamma)
            weights = noise.weight_retention(self.weight_bits[rows], kind)
            steep = -gamma * cache * (1 - cache) * weights
            by_log[:, rows] = steep * scaled / np.where(total > 0, total, 1.0)
        by_log = by_log / np.where(parts > 0, parts, 1.0)
        by_table = [np.zeros((len(self.rows), len(entries))) for entries in TABLES.values()]
        numbers = np.arange(len(self.rows))
        for layer in self.inputs.layers:
            weight = by_log * noise.of_layer(layer, self.inputs)
            for (table, _), into in zip(TABLES.items(), by_table, strict=True):
                place = table.place(layer.places(table.name))
                for c, names in enumerate(layer.parts):
                    if table.name in names:
                        inner: float | Floats = 1.0
                        if table.name.endswith("_bits"):
                            raw = noise.deviation(table.name, layer)
                            inner = np.cosh(raw / BOUND) ** -2
                        np.add.at(into, (numbers, place), weight[c] * inner)
        own = np.zeros((len(self.rows), len(codes)))
        layer = self.inputs.layers[0]
        bend = np.cosh(noise.of_format(layer) / BOUND) ** -2
        by_format = (by_log * noise.of_layer(layer, self.inputs)).sum(axis=0) * bend
        has = np.flatnonzero(np.isin(layer.codes, codes))
        own[has, np.searchsorted(codes, layer.codes[has])] = by_format[has]
        return np.concatenate([*by_table, own], axis=1)

    def gradient(self, fitted: "FittedNoise") -> tuple[Floats, Floats]:
        """d retention / d parameter, [N, parameters], for all parameters in the order of
        `fitted.values`, then for the deviation of every format in that of `fitted.formats`; and the
        retention [N]."""
        noise, names = fitted.noise, list(fitted.values)
        codes = np.array(sorted(fitted.formats), dtype=np.int64)
        plain = len(names) - sum(len(entries) for entries in TABLES.values())
        parts = noise.components(self.inputs)
        here = self.predict(noise, parts=parts)
        tabled = [noise.tabled(layer) for layer in self.inputs.layers]
        columns = np.zeros((len(self.rows), len(names) + len(codes)))
        columns[:, plain:] = self.slopes(noise, codes)
        for i, name in enumerate(names[:plain]):
            kind = name.partition(":")[2]
            if kind in KINDS and kind not in self.kinds:
                continue  # no row is of it
            moved = noise.moved(name, STEP)
            outside = name in OF_WEIGHTS or name.split(":")[0] in KIND_EFFECTS
            of_cache = parts if outside else moved.components(self.inputs, tabled)
            columns[:, i] = (self.predict(moved, parts=of_cache) - here) / STEP
        return columns, here


@dataclass(frozen=True)
class FittedNoise:
    """Fitted parameters by name, and deviations of formats by code."""

    values: dict[str, float]
    formats: dict[int, float]
    precision: Floats | None = None
    """Inverse covariance of all of them, in the order of `NoiseRows.gradient`; None: not known."""

    @property
    def noise(self) -> CalibratedNoise:
        return CalibratedNoise(self.values, self.formats)


def fit_calibrated_noise(
    rows: Sequence[AccuracyRow], model: KnownModel, prior: NoisePrior
) -> FittedNoise:
    """The most probable own noise of one model."""
    data = NoiseRows(rows, model)
    count = len(prior.names)
    mean = np.concatenate([prior.mean, np.zeros(len(data.codes))])
    own_sd = FORMAT_SD if model.features.attention is None else MEASURED_FORMAT_SD
    sd = np.concatenate([prior.sd, np.full(len(data.codes), own_sd)])

    def own_of(theta: Floats) -> FittedNoise:
        values = dict(zip(prior.names, theta[:count].tolist(), strict=True))
        return FittedNoise(
            values, dict(zip(data.codes.tolist(), theta[count:].tolist(), strict=True))
        )

    def noise_of(theta: Floats) -> CalibratedNoise:
        return own_of(theta).noise

    def trust(off: Floats) -> Floats:
        """Huber's weight: rows beyond HUBER count by their distance, not its square."""
        weight: Floats = np.sqrt(HUBER / np.maximum(np.abs(off), HUBER))
        return weight

    def residuals(theta: Floats) -> Floats:
        off = distance(data.predict(noise_of(theta)), data.observed, data.sd, MISFIT)
        return np.concatenate([off * trust(off), (theta - mean) / sd])

    def jacobian(theta: Floats) -> Floats:
        columns, here = data.gradient(own_of(theta))
        off = distance(here, data.observed, data.sd, MISFIT)
        # of sign(d) sqrt(HUBER |d|) beyond HUBER the derivative is half of the weight
        inner = np.where(np.abs(off) > HUBER, 0.5, 1.0) * trust(off)
        columns *= (inner / deviation(here, data.sd, MISFIT))[:, None]
        return np.vstack([columns, np.diag(1 / sd)])

    solution = least_squares(
        residuals,
        mean,
        jacobian,
        x_scale=sd,
        xtol=1e-5,
        ftol=1e-5,
        max_nfev=80,
    )
    return replace(own_of(solution.x), precision=solution.jac.T @ solution.jac)
