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
