"""Which of several points are as good as the best: the order in which ties are broken.

Each objective has filters. A filter leaves the points that are as good as the best by one measure,
within what that measure resolves; the next filter breaks the ties that are left.
"""

from collections.abc import Callable

import numpy as np

from .point_arrays import Column, Ints, Mask, PointArrays

NOISE = 0.01
"""Difference of retention that a benchmark of a few hundred items does not resolve."""
SAME_TIME = 0.05
"""Relative difference of time that a roofline does not resolve."""
SAME_MEMORY = 0.02
SAME_RETENTION = 0.0005
ROOMY, ROOMY_TIME = 0.5, 1.4
"""Where so much of the memory stays free, weights that people publish in several types are taken in
the most exact one that is this much slower a token at most: nobody saves memory that is idle."""
Filter = Callable[[Ints], Mask]


def filters(points: PointArrays, roomy: Mask | None = None) -> dict[str, list[Filter]]:
    """Each objective's filters in order: indices -> which of them are as good as the best.
    `roomy`: points that leave half of the memory free, of engines that place ready files."""

    def kept(left: Ints) -> Mask:
        best = left[np.argmax(points.low[left])]
        return near_best(points.low[left], float(resolution(points)[best]))

    def predicted(left: Ints) -> Mask:
        return near_best(points.retention[left], NOISE)

    def fast(left: Ints) -> Mask:
        return near_least(points.time[left], SAME_TIME)

    def small(left: Ints) -> Mask:
        return near_least(points.memory[left], SAME_MEMORY)

    def simple(left: Ints) -> Mask:
        return near_least(points.complexity[left], 0.0)

    def exact(left: Ints) -> Mask:
        room = np.zeros(len(left), dtype=bool) if roomy is None else roomy[left]
        room = room & near_least(points.tpot[left], ROOMY_TIME - 1)
        if not room.any():
            return np.ones(len(left), dtype=bool)
        best = points.retention[left][room].max()
        return room & (points.retention[left] >= best - SAME_RETENTION)

    return {
        "accuracy": [kept, predicted, simple, exact, fast],
        "latency": [fast, kept, simple, fast],
        "memory": [small, kept, simple, fast],
    }


def resolution(points: PointArrays) -> Column:
    """Differences of retention that each point's interval does not resolve; NOISE at least."""
    return np.maximum(points.retention - points.low, NOISE)


def near_best(values: Column, tolerance: float) -> Mask:
    return values >= values.max(initial=-np.inf) - tolerance


def near_least(values: Column, tolerance: float) -> Mask:
    near: Mask = values <= values.min() * (1 + tolerance)
    return near
