"""How wide a calibrated model's intervals must be: its rows predicted from fits without them.

Split conformal prediction: the shift of log noise that would have covered LEVEL of the rows that
were left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...planner.accuracy.calibrated_noise import CalibratedNoise
from ...planner.accuracy.formula import Floats
from ...planner.accuracy.interval import LEVEL, NORMAL_Z, inside
from .accuracy_rows import KINDS, AccuracyRow
from .calibrated_noise import EFFECT_SD, NoisePrior, NoiseRows, fit_calibrated_noise
from .mixed_effects import KnownModel

FOLDS = 5
SHIFTS = np.linspace(0.0, 4.0, 41)
FEWEST = 10
"""Rows of a kind that say how wide its intervals must be."""


@dataclass(frozen=True)
class LeftOut:
    """Rows predicted from fits without their group: retention, the score, and the smallest shift
    of log noise whose interval holds it (inf where none of SHIFTS does), [N] each."""

    predicted: Floats
    observed: Floats
    needed: Floats
    kinds: tuple[str, ...]
    """Of each row, its kind of task."""

    @property
    def shift(self) -> float:
        """Half-width of the intervals in log noise that holds LEVEL of the rows."""
        return _quantile(self.needed)

    def shifts(self, prior: NoisePrior) -> dict[str, float]:
        """The half-width for each kind of task, never less than for all rows alike: what holds
        LEVEL of a kind's own rows where there are FEWEST; for a kind that was not measured, what
        the prior knows of it too."""
        shifts = {}
        for kind in KINDS:
            own = np.array([k == kind for k in self.kinds])
            if own.sum() >= FEWEST:
                shifts[kind] = max(self.shift, _quantile(self.needed[own]))
            elif not own.any():
                known = f"kind:{kind}" in prior.names  # the reference kind has no effect of its own
                spread = prior.sd[prior.names.index(f"kind:{kind}")] if known else EFFECT_SD["kind"]
                shifts[kind] = float(np.hypot(self.shift, NORMAL_Z * spread))
            else:
                shifts[kind] = self.shift
        return shifts

    @property
    def error(self) -> float:
        return float(np.abs(self.predicted - self.observed).mean())

    @property
    def coverage(self) -> float:
        return float((self.needed <= self.shift).mean())


def leave_out(
    rows: Sequence[AccuracyRow],
    groups: Sequence[int],
    model: KnownModel,
    prior: NoisePrior,
    folds: int = FOLDS,
) -> LeftOut:
    """Leave the groups out by folds. There are at least two."""
    fold = np.array(groups) % folds
    shifts = np.zeros((3, len(rows)))
    for out in np.unique(fold):
        left = np.flatnonzero(fold == out)
        kept = [row for row, f in zip(rows, fold, strict=True) if f != out]
        noise, data = (
            fit_calibrated_noise(kept, model, prior).noise,
            NoiseRows([rows[int(i)] for i in left], model),
        )
        shifts[0, left] = data.predict(noise)
        shifts[1, left] = np.minimum(data.observed, 1.0)
        shifts[2, left] = _needed(noise, data)
    return LeftOut(shifts[0], shifts[1], shifts[2], tuple(row.kind for row in rows))


def _needed(noise: CalibratedNoise, data: NoiseRows) -> Floats:
    """Smallest shift whose interval holds each row, sampling error in quadrature; inf for none."""
    parts = noise.components(data.inputs)
    seen, middle = np.minimum(data.observed, 1.0), data.predict(noise, parts=parts)
    shifts = np.full(len(seen), np.inf)
    for shift in SHIFTS[::-1]:
        low, high = (data.predict(noise, end, parts) for end in (shift, -shift))
        shifts[inside(seen, middle, low, high, data.sd)] = shift
    return shifts


def _quantile(needed: Floats) -> float:
    """The shift that holds LEVEL of the rows; at most the widest of SHIFTS, which is taken where
    rows that no interval holds would ask for more."""
    rank = min(int(np.ceil(LEVEL * (len(needed) + 1))), len(needed))
    return min(float(np.sort(needed)[rank - 1]), float(SHIFTS[-1]))
