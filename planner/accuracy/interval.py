"""The interval of a prediction: its confidence level, and whether a measured score lies in it.

The interval is for the retention itself; a score adds its own sampling error, in quadrature. Every
hold-out (models, configurations, the grid's runs) judges by this one rule.
"""

import numpy as np
from numpy.typing import NDArray

from .formula import Floats

LEVEL = 0.9
"""Probability with which an interval is made to hold the true retention; fits write it into their
coefficients, predictions show it."""
NORMAL_Z = 1.645
"""Half-width of an interval of LEVEL of the normal distribution, in standard deviations."""
TIE = 0.005
"""Scores are printed to half a percent at best; an interval's ends are never exactly 0 or 1."""


def inside(
    score: Floats, predicted: Floats, low: Floats, high: Floats, sd: Floats
) -> NDArray[np.bool_]:
    """Whether scores [N] of standard deviation `sd` [N] lie within `low` to `high` [..., N] around
    `predicted` [N]: booleans [..., N]."""
    error = NORMAL_Z * sd
    below = predicted - np.hypot(predicted - low, error)
    above = predicted + np.hypot(high - predicted, error)
    covered: NDArray[np.bool_] = (below <= score + TIE) & (score - TIE <= above)
    return covered
