"""The interval of a prediction: its confidence level, and whether a measured score lies in it.

The interval is for the retention itself; a score adds its own sampling error, in quadrature. Every
hold-out (models, configurations, the grid's runs) judges by this one rule.
"""

import numpy as np
from numpy.typing import NDArray

from .formula import Floats, FormatArrays

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


ROTATED_5_BITS, ROTATED_4_BITS = 0.9, 0.75
"""Upper ends of what rotated keys with biases keep, at 5 bits and more and at 4: what llama.cpp's
needle rows of Qwen2.5-Coder-0.5B kept (.69 at q5_1; .38 to .5 at q4_0 and iq4_nl) and two errors of
their 16 items. Read key ranges alone foresee .00 for all of these: they tell that keys break, not
how far."""


def with_high(table: Floats, formats: FormatArrays | None) -> Floats:
    """A table [low, predicted, high; ...; N] with the upper ends of predictions that rest on read
    key ranges without a row of the model: those of `formats` [N]; None: they rest on more."""
    if formats is None:
        return table
    k_bits, rotated = np.asarray(formats.k_bits), np.asarray(formats.rotate_k)
    high = np.where(k_bits >= 4.5, ROTATED_5_BITS, ROTATED_4_BITS)
    broken = (rotated > 0) & (k_bits >= 3.5) & (k_bits < 7.5)
    table[2] = np.maximum(table[2], np.where(broken, high, 0.0))
    return table
