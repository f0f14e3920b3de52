"""The regression itself: rows -> the most probable parameters and their covariance.

Penalized nonlinear least squares (scipy): each row is a residual in units of its standard
deviation, each parameter another in units of its prior's. A row's standard deviation adds
sampling error, what the model cannot express (on the log-noise scale, so it matters where
retention is falling and not where it is flat), and its weight. Residuals have Student's t
distribution, so that neither a transcription error nor a model unlike all others moves what the
rest say. No random numbers: the same rows give the same coefficients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...planner.accuracy.formula import (
    COEFFICIENTS,
    GRANULARITIES,
    OUTLIER,
    Coefficients,
    Floats,
    FormatArrays,
    FormatNoise,
    context_factor,
    noise,
    weight_noise,
)
from ...planner.accuracy.model_sensitivity import COMPONENTS
from ...planner.accuracy.predictor import EXACT_KIND, above_floor
from ...planner.accuracy.retention import cache_retention, protected_shares, weight_retention
from .accuracy_rows import AccuracyRow
from .least_squares import deviation, distance, least_squares
from .mixed_effects import (
    FIRST_PRIORS,
    UNREAD_WEIGHT,
    KnownModel,
    ParameterLayout,
    ParameterSums,
    as_unread,
    task_of,
)

FLOOR = 0.01
"""Standard deviation of a score that no sampling explains: prompts, kernels, harness versions."""
MISFIT = 0.8
"""Standard deviation of the log noise of a format around the formula."""
FREEDOM = 2.0
"""Degrees of freedom of the residuals' t distribution: a row six standard deviations off weighs
less than a fifteenth of one that is not off."""
MAX_ROUNDS = 10
STEP = 1e-5
"""Of the logarithm of a coefficient, in its numeric derivative."""
SETTLED = 0.02
"""Rows are weighed anew until no parameter moves by more of its prior's sd."""


class RegressionProblem:
    """Rows as arrays, and retention as a function of theta with its derivatives."""

    def __init__(
        self, rows: Sequence[AccuracyRow], layout: ParameterLayout, models: Mapping[str, KnownModel]
    ) -> None:
        self.layout = layout
        self.observed: Floats = np.array([r.retention for r in rows])
        self.sd: Floats = np.hypot([r.sd for r in rows], FLOOR)
        self.trust: Floats = np.sqrt([r.weight for r in rows])
        self.context: Floats = np.array([float(r.context) for r in rows])
        owners = [models[r.model] for r in rows]
        formats, self.shares = formats_and_shares(rows, owners)
        # a model's own rows tell what rotation does to its biases: fit/calibrated_noise.py has none
        biased = np.array([float(m.features.qkv_bias) for m in owners])
        self.formats = replace(formats, biased=biased)
        bits = np.array([r.protected_bits for r in rows])
        self.guarded = np.flatnonzero(self.shares.any(axis=0))
        """Rows with protected layers, and their formats there."""
        self.guarded_formats = self.formats.with_bits(bits, bits).at(self.guarded)
        self.alone = FormatNoise.of(self.formats)
        self.guarded_alone = FormatNoise.of(self.guarded_formats)
        self.fraction: Floats = np.array([m.features.attention_fraction for m in owners])
        self.weight_bits: Floats = np.array([r.weight_bits for r in rows])
        self.exact = np.array([r.kind == EXACT_KIND for r in rows])
        self.floor: Floats = np.array([r.scored.floor for r in rows])
        self.difficulty: Floats = np.array([r.scored.difficulty for r in rows]) * self.exact
        scales = np.array([[layout.scale_row(m, c) for m in owners] for c in COMPONENTS])
        scales[3] += [layout.row(f"kind_weight:{r.kind}", f"method:{r.method}") for r in rows]
        scales[OUTLIER] += [
            layout.row(*["float_bias"] * (r.float_keys and m.features.loses_floats))
            for r, m in zip(rows, owners, strict=True)
        ]
        kinds = [layout.row(f"kind:{r.kind}", f"task:{task_of(r.kind, r.task)}") for r in rows]
        steepness = [layout.row(f"steepness:{r.kind}") for r in rows]
        first = [layout.row(f"first:{r.kind}") for r in rows]
        self.exact_prompt = np.array(
            [float(r.exact_prompt and r.kind in FIRST_PRIORS) for r in rows]
        )
        self.sums = ParameterSums([*scales, np.array(kinds), np.array(steepness), np.array(first)])
        """Logarithms of the four components' scales, of the task's noise, of the steepness, and the
        logit of the first token's share."""

    def components(self, theta: Floats) -> Floats:
        """Noise of the three cache components and of the weights, shape (4, N)."""
        return self._noise(self.layout.coefficients(theta), self._scaled(theta)[0])

    def _scaled(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """What does not depend on coefficients: each component's scale with the task's noise
        [4, N], the steepness of each row's kind against the reference's [N], and the share of the
        score that an exact prompt keeps [N]."""
        *logs, first = self.sums.of(theta)
        *scales, kinds, steepness = np.exp(logs)
        of_components = np.array(scales)
        of_components[:3] *= kinds * self.fraction
        return of_components, steepness, self.exact_prompt / (1.0 + np.exp(-first))

    def _noise(self, coefficients: Coefficients, scales: Floats) -> Floats:
        unit = noise(self.formats, coefficients, self.context, self.alone)
        if len(self.guarded):
            context = self.context[self.guarded]
            own = noise(self.guarded_formats, coefficients, context, self.guarded_alone)
            part = self.shares[:, self.guarded]
            part = part.reshape(3, *[1] * (own.ndim - 2), -1)
            unit[..., self.guarded] = unit[..., self.guarded] * (1.0 - part) + own * part
        slope = coefficients["context"] + coefficients["context_retrieval"] * self.exact
        growth = context_factor(self.context, slope)
        growth = growth * np.exp(coefficients["decline"] * self.difficulty)
        weights = weight_noise(self.weight_bits, coefficients["weight_8bit"])
        parts: Floats = np.concatenate([unit * growth, weights[None]])
        return parts * scales.reshape(4, *[1] * (parts.ndim - 2), -1)

    def retention(self, theta: Floats) -> Floats:
        return self._retention(self.layout.coefficients(theta), *self._scaled(theta))

    def _retention(
        self, coefficients: Coefficients, scales: Floats, steep: Floats, first: Floats
    ) -> Floats:
        """[N]; [variants, N] where the coefficients are columns [variants, 1]."""
        parts = self._noise(coefficients, scales)
        gamma = coefficients["gamma"] * steep
        cache = cache_retention(parts[:3].sum(axis=0), gamma)
        kept = above_floor(cache, first) * weight_retention(parts[3])
        return above_floor(kept, self.floor)

    def jacobian(self, theta: Floats) -> Floats:
        """d retention / d theta, shape (N, parameters)."""
        coefficients, scaled = self.layout.coefficients(theta), self._scaled(theta)
        parts = self._noise(coefficients, scaled[0])
        gamma, first = coefficients["gamma"] * scaled[1], scaled[2]
        total = parts[:3].sum(axis=0)
        cache, weights = cache_retention(total, gamma), weight_retention(parts[3])
        above = 1.0 - self.floor
        by_log = -gamma * cache * (1 - cache) * (1 - first) * weights * above
        by_first = first * (1 - first) * (1 - cache) * weights * above
        shares = by_log * parts[:3] / np.where(total > 0, total, 1.0)
        by_power = by_log * np.log(np.where(total > 0, total, 1.0))
        by_weights = -above_floor(cache, first) * weights * (1 - weights) * above
        slopes = self.sums.slopes([*shares, by_weights, by_log, by_power, by_first])
        count = len(COEFFICIENTS)
        ends = {
            name: np.full((2 * count, 1), value)  # each steps up in one row, down in another
            for name, value in coefficients.items()
        }
        for i, name in enumerate(COEFFICIENTS):
            ends[name][i], ends[name][count + i] = np.exp(theta[i] + STEP), np.exp(theta[i] - STEP)
        kept = self._retention(ends, *scaled)
        slopes[:, :count] = ((kept[:count] - kept[count:]) / (2 * STEP)).T
        return slopes

    def deviation(self, score: Floats) -> Floats:
        """Standard deviation of rows where their true score is `score`: [..., N]."""
        return deviation(score, self.sd, MISFIT, self.floor) / self.trust

    def distance(self, predicted: Floats) -> Floats:
        """How far predictions are from the scores, in standard deviations met on the way."""
        return self.trust * distance(predicted, self.observed, self.sd, MISFIT, self.floor)


@dataclass(frozen=True)
class Fit:
    """The most probable theta, its covariance, and the problem's layout."""

    layout: ParameterLayout
    theta: Floats
    covariance: Floats


def fit_rows(
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    start: Mapping[str, float] | None = None,
) -> Fit:
    """Fit all parameters to `rows`. `start` maps parameter names to first guesses.

    Rows of a cache whose keys were read count once more as those of a model that nobody read: keys
    are read where they are known to be lost, and the others' family must know of that.
    """
    used = [models[key] for key in dict.fromkeys(r.model for r in rows)]
    measured = {r.model for r in rows if r.provenance == "calibrated"}
    unread = {m.key: as_unread(m) for m in used if m.features.ranges is not None}
    again = [
        replace(r, model=unread[r.model].key, weight=UNREAD_WEIGHT * r.weight)
        for r in rows
        if r.model in unread and r.quantizes_cache
    ]
    tasks = [task_of(r.kind, r.task) for r in rows]
    layout = ParameterLayout(used, tasks, measured, list(unread.values()))
    everyone = {**models, **{m.key: m for m in unread.values()}}
    problem = RegressionProblem([*rows, *again], layout, everyone)
    mean, spread = layout.prior_mean, layout.prior_sd
    theta = mean.copy()
    for name, value in (start or {}).items():
        if name in layout.index:
            theta[layout.index[name]] = value
    for _ in range(MAX_ROUNDS):
        far = problem.distance(problem.retention(theta))
        trust = np.sqrt((FREEDOM + 1.0) / (FREEDOM + far**2))

        def residuals(x: Floats, trust: Floats = trust) -> Floats:
            rows = trust * problem.distance(problem.retention(x))
            return np.concatenate([rows, (x - mean) / spread])

        def jacobian(x: Floats, trust: Floats = trust) -> Floats:
            by_score = trust / problem.deviation(problem.retention(x))
            return np.vstack([problem.jacobian(x) * by_score[:, None], np.diag(1 / spread)])

        before = theta
        theta = least_squares(residuals, jacobian, theta)
        if np.abs((theta - before) / spread).max() < SETTLED:
            break
    final = jacobian(theta)
    covariance = np.linalg.inv(final.T @ final).astype(np.float64)
    return Fit(layout, theta, covariance)


def formats_and_shares(
    rows: Sequence[AccuracyRow], owners: Sequence[KnownModel]
) -> tuple[FormatArrays, Floats]:
    """Rows' KV formats with the key noise that was read from their models' checkpoints, and each
    component's share in protected layers [3, N]; what was read counts its protected layers."""
    formats = formats_of(rows, owners)
    shares = [
        protected_shares(m.features.outliers, m.features.layers, r.protected_layers)
        for r, m in zip(rows, owners, strict=True)
    ]
    by_component: Floats = np.array([[s.plain, s.outlier, s.value] for s in shares]).T
    attention = owners[0].features.attention if owners else None
    if attention is not None:  # rows of one model that is calibrated
        bits = np.array([r.protected_bits for r in rows], dtype=float)
        protections = [r.protected_layers for r in rows]
        measured = attention.noise(formats, protections, np.arange(len(rows)), (bits, bits))
        return replace(formats, measured=measured), np.zeros_like(by_component)
    read: Floats = np.full(len(rows), np.nan)
    for key in dict.fromkeys(m.key for m in owners if m.features.ranges is not None):
        own = np.array([i for i, m in enumerate(owners) if m.key == key])
        ranges = owners[own[0]].features.ranges
        assert ranges is not None
        read[own] = ranges.noise(
            formats.at(own),
            [rows[i].protected_layers for i in own],
            np.arange(len(own)),
            np.array([rows[i].protected_bits for i in own]),
        )
        by_component[OUTLIER, own] = 0.0
    return (formats if np.isnan(read).all() else replace(formats, read=read)), by_component


def formats_of(rows: Sequence[AccuracyRow], owners: Sequence[KnownModel]) -> FormatArrays:
    """Rows' KV formats as arrays; a group of 0 is the head."""

    def floats(values: Sequence[float]) -> Floats:
        return np.array(values, dtype=float)

    names = [str(g) for g in GRANULARITIES]
    return FormatArrays(
        k_bits=floats([r.k_bits for r in rows]),
        v_bits=floats([r.v_bits for r in rows]),
        granularity=np.array([names.index(r.granularity) for r in rows]),
        group=floats(
            [
                min(r.group_size or m.features.head_dim, m.features.head_dim)
                for r, m in zip(rows, owners, strict=True)
            ]
        ),
        block=floats([r.block_tokens for r in rows]),
        smoothing=floats([r.smoothing for r in rows]),
        rotate_k=floats([r.rotate_k for r in rows]),
        rotate_v=floats([r.rotate_v for r in rows]),
        residual=floats([r.residual for r in rows]),
        exact_prompt=floats([r.exact_prompt for r in rows]),
        float_keys=floats([r.float_keys for r in rows]),
    )
