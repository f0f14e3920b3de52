"""What to measure next, once a model has rows enough for a noise of its own: the run that tells
most of all the others.

After the anchors, the model's own noise is fitted to its rows (fit/calibrated_noise.py). That fit
has a covariance, so every retention that was not measured is known with a spread:

    u = log((1 - r) / r)   r: retention; u is about normal, with the mean u(theta) of the fit and
                           the variance J H^-1 J', J = du / dtheta, H the fit's precision

A run of a candidate takes away a part of that variance everywhere, by the correlation of its own u
with that of the others (a Gaussian conditional). What is left of the expected absolute error,
summed over the points that were not measured, is the run's worth: the expectation is over what
the run may find. The error is taken of r and not of u, since nothing is gained by knowing how
thoroughly a format fails; that is where linearized designs (A- and D-optimal) waste their runs.

Late runs look at the frontier in turn with that: they measure the pick whose promise is least sure,
or the format that may beat a pick by most, where that is a point or more. So does the last of all
where it is three, since no run comes after it that would.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

from ..fit.accuracy_rows import AccuracyRow
from ..fit.calibrated_noise import NoisePrior, NoiseRows, fit_calibrated_noise
from ..fit.mixed_effects import KnownModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FRONTIER_FROM, FRONTIER_EVERY = 10, 2
"""Runs before which the frontier is not looked at, since what is known of it is the prior; and how
often it is then."""
WORTH, LAST_WORTH = 0.01, 0.03
"""Expected error of a pick from which on a run is spent on it; the last run, out of turn."""
SAFE, TIE = 0.9, 0.002
"""What a pick keeps for sure at least, and what a dearer pick must gain."""
SATURATED = 1e-9
"""Nearness to 0 and 1 at which u is no longer followed."""
OWN = 0.64
"""Standard deviation of u that a format has of its own, which no other format tells."""
MISFIT = 0.4
"""The same, of a single row."""
STEEPNESS = 2.0
"""d u / d log noise, about; it makes of the fit's misfit one of u."""
SOME = 400
"""Points that stand for all, drawn anew for each run."""
NEGLIGIBLE = 0.01
"""Part of a spread whose loss is not counted."""
_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_INNER, _INNER_WEIGHTS = _POINTS[1:-1], _WEIGHTS[1:-1] / _WEIGHTS[1:-1].sum()


@dataclass(frozen=True, eq=False)
class Points:
    """What runs of C candidates would tell: N rows as they would leave them (their retention does
    not matter), the candidate of each [N], and the candidates' memory [C] in any unit."""

    rows: Sequence[AccuracyRow]
    owner: Ints
    memory: Floats

    @property
    def fronts(self) -> list[npt.NDArray[np.intp]]:
        """Rows of each frontier: one for each context and each weight format."""
        keys = [(row.context, row.weight_bits) for row in self.rows]
        return [
            np.array([i for i, other in enumerate(keys) if other == key])
            for key in dict.fromkeys(keys)
        ]


@dataclass(frozen=True, eq=False)
class Belief:
    """u of every point [N]: its mean, and a root of the covariance [N, d]."""

    mean: Floats
    root: Floats

    @classmethod
    def of(
        cls, rows: Sequence[AccuracyRow], model: KnownModel, prior: NoisePrior, points: NoiseRows
    ) -> "Belief":
        """What the model's measured rows say of the points."""
        fitted = fit_calibrated_noise(rows, model, prior)
        assert fitted.precision is not None  # the fit gives it
        gradient, kept = points.gradient(fitted)
        inside = np.clip(kept, SATURATED, 1 - SATURATED)
        slopes = -gradient / (inside * (1 - inside))[:, None]
        slopes[(kept < SATURATED) | (kept > 1 - SATURATED)] = 0.0
        lower = np.linalg.cholesky(fitted.precision)
        root = solve_triangular(lower, slopes.T, lower=True).T
        return cls(np.log((1 - inside) / inside), root)

    @property
    def variance(self) -> Floats:
        total: Floats = (self.root**2).sum(axis=1)
        return total

    @property
    def spread(self) -> Floats:
        """Standard deviation of u, with what a format and a row have of their own."""
        total: Floats = np.sqrt(self.variance + OWN**2 / 2 + MISFIT**2)
        return total


def most_telling(
    belief: Belief, points: Points, tried: Collection[int], row_sd: float, rng: np.random.Generator
) -> int | None:
    """The candidate whose run leaves the least expected error; None where all are tried. `row_sd`
    is the sampling error of a row's retention."""
    open_rows = np.flatnonzero(~np.isin(points.owner, list(tried)))
    if not len(open_rows):
        return None
    some = open_rows
    if len(some) > SOME:
        some = rng.choice(some, SOME, replace=False)
    mean, spread = belief.mean[some], np.sqrt(belief.variance[some])
    now = expected_error(mean, spread, spread)
    by_candidate = _rows_of(points.owner, open_rows)
    worth = {}
    for candidate, own in by_candidate.items():
        left = np.sqrt(np.maximum(spread**2 - _told(belief, own, some, row_sd), 0.0))
        left[points.owner[some] == candidate] = 0.0
        moved = np.flatnonzero(spread - left > NEGLIGIBLE * spread)
        after = expected_error(mean[moved], spread[moved], left[moved])
        worth[candidate] = float((now[moved] - after).sum())
    return max(worth, key=worth.__getitem__)


def doubted_pick(
    belief: Belief, points: Points, tried: Collection[int], kept: Floats
) -> tuple[int | None, float]:
    """The candidate whose run does most for a pick of a frontier, and the expected error that it
    takes away there; None where no run does. `kept` [N] are the measured retentions at the points
    of what was tried, nan where there is none."""
    spread = belief.spread
    best: tuple[int | None, float] = (None, 0.0)
    for rows in points.fronts:
        places = _rows_of(points.owner, rows)
        owners = np.array(list(places))
        possible = np.array(
            [
                _retention(belief.mean[own][:, None] + spread[own][:, None] * _POINTS).mean(axis=0)
                for own in places.values()
            ]
        )
        middle = np.array([_retention(belief.mean[own]).mean() for own in places.values()])
        low = np.array(
            [_retention(belief.mean[own] + 1.645 * spread[own]).mean() for own in places.values()]
        )
        ran = np.isin(owners, list(tried))
        seen = np.array([kept[own].mean() for own in places.values()])
        measured = ran & ~np.isnan(seen)
        middle, low = np.where(measured, seen, middle), np.where(measured, seen, low)
        low[ran & ~measured] = 0.0  # it failed, or is under way
        order = np.lexsort((-middle, points.memory[owners]))
        picks, values = _picks(middle[order], low[order])
        for place, i in enumerate(order):
            if ran[i]:
                continue
            beaten, mine = values[place:], picks[place:] == place
            # where nothing is recommended, nothing is promised
            level = np.where(beaten > 0, np.maximum(beaten, SAFE), np.inf)
            gains = np.maximum(possible[i] - level[:, None], 0.0) @ _WEIGHTS
            promise = float(np.abs(possible[i] - middle[i]) @ _WEIGHTS)
            gain = float(np.where(mine, promise, gains).max())
            if gain > best[1]:
                best = int(owners[i]), gain
    return best


class TellingDesign:
    """Chooses runs of one model among `points`, by its measured rows."""

    def __init__(self, points: Points, model: KnownModel, prior: NoisePrior) -> None:
        self._points, self._model, self._prior = points, model, prior
        self._arrays = NoiseRows(points.rows, model)

    def next(
        self, rows: Sequence[AccuracyRow], tried: Collection[int], kept: Floats, last: bool
    ) -> int | None:
        """The candidate to run after `tried`, `last` of all or not; None where all are tried.
        `kept`: see `doubted_pick`."""
        with threadpool_limits(1):  # the matrices are small: threads only wait for each other
            belief = Belief.of(rows, self._model, self._prior, self._arrays)
            number = len(tried)
            turn = number >= FRONTIER_FROM and (number - FRONTIER_FROM) % FRONTIER_EVERY == 0
            if turn or last:
                candidate, gain = doubted_pick(belief, self._points, tried, kept)
                if gain >= (WORTH if turn else LAST_WORTH):
                    return candidate
            row_sd = float(np.median([row.sd for row in rows]))
            rng = np.random.default_rng(number)
            return most_telling(belief, self._points, tried, row_sd, rng)

    def expected(self, rows: Sequence[AccuracyRow], tried: Collection[int]) -> float:
        """Mean error of retention that `rows` leave, as the fit expects it, over all points of
        candidates that were not tried."""
        with threadpool_limits(1):
            belief = Belief.of(rows, self._model, self._prior, self._arrays)
        left = ~np.isin(self._points.owner, list(tried))
        spread = belief.spread[left]
        return float(expected_error(belief.mean[left], spread, spread).mean())


def expected_error(mean: Floats, spread: Floats, left: Floats) -> Floats:
    """Expected |r - middle| of retentions r whose u is normal about `mean` with `spread`, after a
    measurement that leaves `left` of the spread and moves the middle as it may [N]."""
    moved = mean[..., None] + np.sqrt(np.maximum(spread**2 - left**2, 0.0))[..., None] * _INNER
    middle = _retention(moved)
    ends = _retention(moved[..., None] + left[..., None, None] * _POINTS)
    error: Floats = (np.abs(ends - middle[..., None]) @ _WEIGHTS) @ _INNER_WEIGHTS
    return error


def _told(belief: Belief, own: npt.NDArray[np.intp], some: Ints, row_sd: float) -> Floats:
    """Variance of u of the points `some` that a run with the rows `own` takes away."""
    spread = np.sqrt(belief.variance[own] + OWN**2)
    kept = _retention(belief.mean[own][:, None] + spread[:, None] * _POINTS)
    slope = kept * (1 - kept)
    information = (slope / np.hypot(row_sd, MISFIT * STEEPNESS * slope)) ** 2 @ _WEIGHTS
    root = belief.root[own]
    noise = OWN**2 + np.diag(1 / np.maximum(information, 1e-6))
    shared = root @ belief.root[some].T
    told: Floats = (shared * np.linalg.solve(root @ root.T + noise, shared)).sum(axis=0)
    return told


def _picks(middle: Floats, low: Floats) -> tuple[Ints, Floats]:
    """At each candidate in the order of memory: the place of the pick there (-1: none) and what it
    is expected to keep."""
    picks, values = np.full(len(middle), -1), np.zeros(len(middle))
    pick, value = -1, 0.0
    for place, (expected, least) in enumerate(zip(middle, low, strict=True)):
        if least >= SAFE and expected > value + TIE:
            pick, value = place, float(expected)
        picks[place], values[place] = pick, value
    return picks, values


def _rows_of(owner: Ints, rows: npt.NDArray[np.intp]) -> dict[int, npt.NDArray[np.intp]]:
    """The given rows of each candidate that has some."""
    found: dict[int, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(int(owner[row]), []).append(row)
    return {candidate: np.array(own) for candidate, own in found.items()}


def _retention(odds: Floats) -> Floats:
    retention: Floats = 1.0 / (1.0 + np.exp(np.clip(odds, -60.0, 60.0)))
    return retention
