"""The most probable own noise of one model, given its rows and what the shared fit expects.

The prior is the shared fit: its coefficients and this model's predicted scales, each with the
spread that models have around them. Penalized least squares as in regression.py, with less slack:
rows of one model on one machine share their prompts and kernels, so what the formula cannot say
is all that is left between them.

How wide intervals must be is taken from configurations that were left out (split conformal): the
shift of log noise that would have covered LEVEL of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from ..planner.accuracy_model import Predictor
from ..planner.model_effects import Effects
from ..planner.own_noise import SCALES, SLOPES, Inputs, OwnNoise, names_of
from ..planner.quantization_noise import COEFFICIENTS, Floats
from ..planner.retention import protected_shares
from .hierarchy import REFERENCE_KIND, Model
from .regression import distance, formats_of
from .rows import KINDS, Row

FLOOR = 0.002
"""Standard deviation of a score beside sampling: runs differ by kernels alone."""
MISFIT = 0.15
"""Standard deviation of log noise that neither formula nor table explains."""
HUBER = 3.0
BETWEEN_MODELS = 0.5
"""Spread of a coefficient's logarithm between models, beside what the shared fit does not know."""
SLOPE_PRIORS = {"group_key": (0.1, 1.0), "group_value": (0.1, 1.0)}
"""Median, and sd of its logarithm; the others are the shared fit's own."""
EFFECT_SD = {"kind": 0.5, "value": 0.5, "gamma": 0.3, "weight": 0.7}
TABLE_SD = 0.4
FOLDS = 8
STEP = 1e-4


@dataclass(frozen=True)
class Prior:
    """Means and standard deviations of all parameters."""

    names: tuple[str, ...]
    mean: Floats
    sd: Floats


def prior_of(shipped: Predictor, effects: Effects) -> Prior:
    """What the shared fit expects of a model with these effects."""
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
    for name, value, spread in zip(SCALES, effects.mean, effects.sd, strict=True):
        mean[f"scale:{name}"], sd[f"scale:{name}"] = float(value), float(spread)
    names = names_of([kind for kind in KINDS if kind != REFERENCE_KIND])
    for name in names:
        effect, _, kind = name.partition(":")
        if name in mean:
            continue
        if kind in KINDS:
            shared = payload["kinds"].get(kind, (0.0, 0.0)) if effect == "kind" else (0.0, 0.0)
            mean[name], sd[name] = shared[0], float(np.hypot(shared[1], EFFECT_SD[effect]))
        else:
            mean[name], sd[name] = 0.0, TABLE_SD
    return Prior(tuple(names), np.array([mean[n] for n in names]), np.array([sd[n] for n in names]))


class Rows:
    """Rows of one model as arrays."""

    def __init__(self, rows: Sequence[Row], model: Model) -> None:
        self.rows = tuple(rows)
        formats = formats_of(rows, [model] * len(rows))
        bits = np.array([r.protected_bits for r in rows])
        features = model.features
        shares = [
            protected_shares(features.outliers, features.layers, r.protected_layers) for r in rows
        ]
        self.inputs = Inputs.of(
            formats,
            formats.with_bits(bits, bits),
            np.array([[s.plain, s.outlier, s.value] for s in shares]).T,
            np.array([float(r.context) for r in rows]),
            features.attention_fraction,
        )
        self.weight_bits: Floats = np.array([r.weight_bits for r in rows])
        self.observed: Floats = np.array([r.retention for r in rows])
        self.sd: Floats = np.hypot([r.sd for r in rows], FLOOR)
        self.kinds = {
            kind: np.array([r.kind == kind for r in rows])
            for kind in dict.fromkeys(r.kind for r in rows)
        }

    def predict(self, noise: OwnNoise, shift: float = 0.0) -> Floats:
        """Retention of every row, with log noise moved by `shift`."""
        parts = noise.components(self.inputs)
        found: Floats = np.empty(len(self.rows))
        for kind, rows in self.kinds.items():
            cache = noise.cache_retention(parts[:, rows], kind, shift)
            found[rows] = cache * noise.weight_retention(self.weight_bits[rows], kind, shift)
        return found


def fit_own(
    rows: Sequence[Row], model: Model, prior: Prior, start: Floats | None = None
) -> dict[str, float]:
    """The most probable parameters by name."""
    data = Rows(rows, model)

    def residuals(theta: Floats) -> Floats:
        predicted = data.predict(OwnNoise(dict(zip(prior.names, theta.tolist(), strict=True))))
        off = distance(predicted, data.observed, data.sd, MISFIT)
        # Huber's loss as a residual: its square grows linearly beyond HUBER
        far = np.maximum(np.abs(off), HUBER)
        bounded = np.sign(off) * np.where(
            np.abs(off) > HUBER, np.sqrt(2 * HUBER * far - HUBER**2), np.abs(off)
        )
        return np.concatenate([bounded, (theta - prior.mean) / prior.sd])

    found = least_squares(
        residuals,
        prior.mean if start is None else start,
        x_scale=prior.sd,
        xtol=1e-6,
        ftol=1e-6,
        max_nfev=60,
    )
    return dict(zip(prior.names, found.x.tolist(), strict=True))
