"""What a short calibration measures next: the run that is expected to do most to the frontier.

Memory is known by arithmetic, so only accuracy is bought. Beliefs about the accuracy of every
candidate start from the fitted regression and its interval, and are updated by what is measured:

    u = log((1 - r) / r)   r: retention; u is the log odds of the loss
    u_i = prior_i + sd_i g(x_i),   g a Gaussian process: what is off for one format is off for
                                   its neighbours too, and partly for all of the model's

Posterior draws of all candidates together say what the frontier may be. At each level of memory
a draw has a best candidate, and the plan would pick the one of the highest expected accuracy; the
difference is what the plan loses there for not knowing better. The mean over draws and levels is
the expected error of the frontier, and each of its parts is charged to the two candidates that
cause it, so far as they are not measured. The one charged most is run next. When the expected
error is below the tolerance, the frontier is settled.

The process is kept in random Fourier features (Rahimi & Recht 2007), so that thousands of
candidates cost a few milliseconds a draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...planner.search.choose import USABLE

Floats = npt.NDArray[np.float64]

SMALLEST = 0.002
"""Losses below this, or above 1 - this, are not told apart."""
LEAST_SD = 0.5
"""Of u, of every candidate: no prior is so sure that a measurement could not correct it."""
COMMON = 0.5
"""Share of a prior's variance that all candidates have in common: the model's own sensitivity."""
FEATURES = 256
DRAWS = 128
JITTER = 0.1
"""Error of u of a measurement beside its sampling error: chance between equal formats."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """N configurations that may be run: memory in bytes [N], coordinates [N, d] (a distance of 1
    is where formats stop to resemble each other), and the prior of retention with its interval's
    ends at 90 % [N]."""

    memory: npt.NDArray[np.int64]
    place: Floats
    retention: Floats
    low: Floats
    high: Floats
    front: npt.NDArray[np.int64] | None = None
    """Which frontier each candidate is on, such as its context [N]; None: all are on one."""

    def fronts(self) -> list[npt.NDArray[np.intp]]:
        """The candidates of each frontier, by memory."""
        front = np.zeros(len(self.memory)) if self.front is None else self.front
        members = [np.flatnonzero(front == one) for one in np.unique(front)]
        return [m[np.argsort(self.memory[m], kind="stable")] for m in members]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Retention of one candidate and its standard error."""

    retention: float
    sd: float


@dataclass(frozen=True, slots=True)
class NextRun:
    """The candidate to run next (None: all that matter are measured), and the expected error of
    the frontier before it is run."""

    index: int | None
    expected_error: float


class Posterior:
    """The accuracy of all candidates, given some measurements."""

    def __init__(self, candidates: Candidates, measured: Mapping[int, Measurement]) -> None:
        self.candidates = candidates
        self.measured = dict(measured)
        self._prior = log_odds(candidates.retention)
        width = log_odds(candidates.low) - log_odds(candidates.high)
        sd = np.maximum(width / (2 * 1.645), LEAST_SD)
        self._basis = sd[:, None] * _features(candidates.place)
        self._mean, self._root = self._update()

    def _update(self) -> tuple[Floats, Floats]:
        """Posterior of the weights of the features: mean, and a root of the covariance."""
        count = self._basis.shape[1]
        precision, right = np.eye(count), np.zeros(count)
        for i, measurement in self.measured.items():
            kept = float(np.clip(measurement.retention, SMALLEST, 1 - SMALLEST))
            error = np.hypot(measurement.sd / (kept * (1 - kept)), JITTER)
            row = self._basis[i]
            precision += np.outer(row, row) / error**2
            right += row * (log_odds(np.array(kept)) - self._prior[i]) / error**2
        root = np.linalg.inv(np.linalg.cholesky(precision))  # covariance = root.T @ root
        return root.T @ (root @ right), root

    @property
    def retention(self) -> Floats:
        """The median of each candidate's retention [N]."""
        return _retention(self._prior + self._basis @ self._mean)

    def draws(self, count: int, rng: np.random.Generator) -> Floats:
        """Possible retentions of all candidates together [count, N]."""
        weights = self._mean + rng.standard_normal((count, len(self._mean))) @ self._root
        return _retention(self._prior + weights @ self._basis.T)


def choose(posterior: Posterior, rng: np.random.Generator) -> NextRun:
    """The next run, see above; of several frontiers, the one that does most to their mean."""
    fronts = posterior.candidates.fronts()
    kept, draws = _worth(posterior.retention), _worth(posterior.draws(DRAWS, rng))
    charge = np.zeros(len(kept))
    total = 0.0
    for order in fronts:
        levels = _levels(posterior.candidates.memory[order])
        picks = order[_best_below(kept[order])[levels]]
        for draw in draws:
            best = order[_best_below(draw[order])[levels]]
            lost = draw[best] - draw[picks]
            total += float(lost.mean())
            np.add.at(charge, best, lost)
            np.add.at(charge, picks, lost)
    charge[list(posterior.measured)] = 0.0
    index = int(np.argmax(charge))
    return NextRun(index if charge[index] > 0 else None, total / DRAWS / len(fronts))


def frontier_error(memory: npt.NDArray[np.int64], truth: Floats, predicted: Floats) -> float:
    """What picking by `predicted` loses of the true retention, mean over the levels of memory."""
    return float(missed(memory, truth, predicted).mean())


def missed(memory: npt.NDArray[np.int64], truth: Floats, predicted: Floats) -> Floats:
    """What picking by `predicted` loses of the true retention at each level of memory."""
    truth, predicted = _worth(truth), _worth(predicted)
    order = np.argsort(memory, kind="stable")
    levels = _levels(memory[order])
    best = order[_best_below(truth[order])[levels]]
    picks = order[_best_below(predicted[order])[levels]]
    losses: Floats = truth[best] - truth[picks]
    return losses


def log_odds(retention: Floats) -> Floats:
    """u of retentions."""
    kept = np.clip(retention, SMALLEST, 1 - SMALLEST)
    odds: Floats = np.log((1 - kept) / kept)
    return odds


def _retention(odds: Floats) -> Floats:
    retention: Floats = 1.0 / (1.0 + np.exp(odds))
    return retention


def _worth(retention: Floats) -> Floats:
    """What a retention is worth to a plan: below USABLE nothing is ever recommended."""
    worth: Floats = np.maximum(retention, USABLE)
    return worth


def _levels(memory: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Of sorted sizes, the last place of each distinct one."""
    return np.flatnonzero(np.append(memory[1:] != memory[:-1], True))


def _best_below(values: Floats) -> npt.NDArray[np.intp]:
    """For each place, where the largest value up to it is (the first of equals)."""
    best = np.maximum.accumulate(values)
    new = np.append(True, values[1:] > best[:-1])
    return np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))


def _features(place: Floats) -> Floats:
    """[N, FEATURES + 1] whose products are the correlations of g: a constant part, and one that
    falls as exp(-distance² / 2). The frequencies are the same in every process."""
    rng = np.random.default_rng(0)
    frequencies = rng.standard_normal((place.shape[1], FEATURES))
    phases = rng.uniform(0, 2 * np.pi, FEATURES)
    waves = np.sqrt(2 * (1 - COMMON) / FEATURES) * np.cos(place @ frequencies + phases)
    return np.concatenate([np.full((len(place), 1), np.sqrt(COMMON)), waves], axis=1)
