"""Damped Gauss-Newton steps by the normal equations: least squares of a few hundred parameters.

A hold-out fits the regression sixty times, each with some two thousand residuals and four hundred
parameters that have priors. scipy's trust region decomposes the whole Jacobian in every step, ten
times the work of a Cholesky factor of J^T J, which the priors keep well-conditioned.
"""

from collections.abc import Callable

import numpy as np

from ...planner.accuracy.formula import Floats

Function = Callable[[Floats], Floats]
STEPS = 60
SETTLED = 1e-8
"""Relative fall of the sum of squares below which the minimum is reached."""
MOST_DAMPED = 1e8
TYPICAL_GAMMA = 2.0
"""Steepness by which a misfit in log noise is turned into one of the score; gamma is near it."""
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(16)


def least_squares(residuals: Function, jacobian: Function, start: Floats) -> Floats:
    """The parameters near `start` that make the sum of squared residuals least.

    Levenberg's damping in units of the diagonal (Marquardt 1963): a step that makes the sum larger
    is tried again shorter.
    """
    x, damping = start, 1e-4
    off = residuals(x)
    cost = float(off @ off)
    for _ in range(STEPS):
        slopes = jacobian(x)
        normal, gradient = slopes.T @ slopes, slopes.T @ off
        while True:
            damped = normal.copy()
            np.fill_diagonal(damped, (1.0 + damping) * normal.diagonal())
            moved = x - np.linalg.solve(damped, gradient)
            off_there = residuals(moved)
            there = float(off_there @ off_there)
            if there < cost or damping > MOST_DAMPED:
                break
            damping *= 4.0
        if not there < cost:
            return x
        fall, x, off, cost = cost - there, moved, off_there, there
        damping = max(damping / 8.0, 1e-10)
        if fall < SETTLED * cost:
            return x
    return x


def deviation(score: Floats, sd: Floats, misfit: float, floor: Floats | float = 0.0) -> Floats:
    """Standard deviation of rows where their true score is `score`: [..., N].

    The misfit in log noise moves a score by the slope of the link, gamma y (1 - y) above the floor:
    much where scores fall, nothing where they are whole or gone.
    """
    inside = np.clip((score - floor) / (1.0 - floor), 0.0, 1.0)
    slope = TYPICAL_GAMMA * inside * (1.0 - inside) * (1.0 - floor)
    sd_of_row: Floats = np.hypot(sd, misfit * slope)
    return sd_of_row


def distance(
    predicted: Floats, observed: Floats, sd: Floats, misfit: float, floor: Floats | float = 0.0
) -> Floats:
    """How far predictions are from the scores, in standard deviations met on the way.

    The integral of 1 / deviation from score to prediction: neither a score nor a prediction
    near 0 or 1 alone makes a row seem certain.
    """
    way = predicted - observed
    points = observed + np.multiply.outer((1.0 + _NODES) / 2.0, way)
    signed: Floats = way * (_NODE_WEIGHTS @ (1.0 / deviation(points, sd, misfit, floor))) / 2.0
    return signed
