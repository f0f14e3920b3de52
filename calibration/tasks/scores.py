"""Scores with their sampling error, and the difference of two runs over the same items.

A few dozen items say little about the third digit of a score, and a plan that ranks
configurations must know how little. Runs over the same items are compared item by item: what
makes an item hard for both cancels, so a paired difference is known far better than either score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np

from ...planner.errors import BadInput


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over items, its standard error, and the items' own values."""

    value: float
    stderr: float
    per_item: tuple[float, ...]

    @classmethod
    def of(cls, per_item: Sequence[float]) -> Self:
        """Mean and its standard error, s / sqrt(n) with s the sample deviation.

        One item has no deviation: its error is 0.5, the largest that a score in 0..1 can have.
        Raises BadInput for no items.
        """
        values = np.asarray(per_item, dtype=float)
        if not values.size:
            raise BadInput("a score of no items", "ask for at least one item")
        deviation = float(values.std(ddof=1)) if values.size > 1 else 0.5
        return cls(
            float(values.mean()), deviation / math.sqrt(values.size), tuple(map(float, values))
        )

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Wilson's interval for a score whose items lie in 0..1.

        Unlike value ± z stderr it is not empty where every item scored the same: 20 of 20 right
        leaves room for a true score below 1. Items with partial credit vary less than the
        right-or-wrong ones it assumes, so for them it is on the wide side.
        """
        n, p = len(self.per_item), min(max(self.value, 0.0), 1.0)
        z = NormalDist().inv_cdf(0.5 + level / 2)
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Paired:
    """A second run against a first over the same items: difference (second - first) and ratio.

    Retention, the ratio of the means, and its error are None where the first run scored 0.
    """

    difference: float
    stderr: float
    retention: float | None
    retention_stderr: float | None


def paired(first: Score, second: Score) -> Paired:
    """Compare two runs item by item; the first is the reference.

    The difference's error is that of the mean of the items' differences. The ratio r = b / a of
    two means has, to first order (the delta method), the error of mean(b_i - r a_i) / a. Where a
    single item leaves an error unknown it is 1, the whole range.
    Raises BadInput when the items cannot be the same.
    """
    a, b = np.asarray(first.per_item), np.asarray(second.per_item)
    if a.shape != b.shape:
        raise BadInput(
            f"{a.size} items cannot be paired with {b.size}", "run both over the same items"
        )
    ratio = second.value / first.value if first.value else None
    return Paired(
        difference=second.value - first.value,
        stderr=_mean_error(b - a),
        retention=ratio,
        retention_stderr=None if ratio is None else _mean_error((b - ratio * a) / first.value),
    )


def _mean_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else 1.0
