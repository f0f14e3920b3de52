"""Which point of a space to recommend, and which to show around it. Rules only, no words.

A point is usable when it is predicted to keep at least half of the score, and fits when the upper
end of its predicted memory does. Among those that lose no more accuracy than is accepted, one
filter after another leaves what is as good as the best by

    accuracy  retention's lower end (within TIE), then simplicity, then time (SAME_TIME)
    latency   time for prompt and output, then retention's lower end (within NOISE)
    memory    the upper end of memory (SAME_MEMORY), then retention's lower end, then time

and of what is left the simplest is taken, then the smallest. Who asks for accuracy is not given a
faster format for a loss that a benchmark could not see: what is certain to lose nothing, the
plain model, wins where it fits. A loss is held by the lower end of
predicted retention. Where no point that fits holds it so but the prediction itself does, those
near the highest lower end are left to choose from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .pareto import pareto_mask

USABLE = 0.5
NOISE = 0.005
"""Difference of retention that a benchmark of a few hundred items does not resolve."""
TIE = 0.001
"""Difference of retention that is none even to who asks for nothing but accuracy."""
SAME_TIME = 0.05
"""Relative difference of time that a roofline does not resolve."""
SAME_MEMORY = 0.02
WORTH = 0.01
"""Retention that a step up must add to be worth more memory."""
RETENTION_STEP, MEMORY_STEP = 0.0025, 1.005
"""Resolution of the frontier: below it, differences are no differences."""
SHOWN, SHOWN_RETENTION = 10, 0.9

Column = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Near = Callable[[Column, float], Mask]


@dataclass(frozen=True, eq=False)
class Points:
    """What decides, one flat array of length N each; smaller is better but for retention.

    `memory` is the upper end in bytes, `low` and `retention` the lower end and the prediction.
    """

    memory: Ints
    low: Floats
    retention: Floats
    ttft: Floats
    tpot: Floats
    time: Floats
    """Seconds (or units of a reference) for the whole prompt and output."""
    complexity: Ints


@dataclass(frozen=True, slots=True)
class Choice:
    """`index` of the point; `alike`: how many were as good by the objective; `held`: whether the
    lower end of retention holds the accepted loss (True where no loss is asked for)."""

    index: int
    alike: int
    held: bool = True


def choose(points: Points, fitting: Mask, objective: str, loss: float | None) -> Choice | None:
    """The point to recommend; None where nothing that fits loses as little as is accepted."""
    held = True
    left = np.flatnonzero(fitting & (points.retention >= USABLE))
    if loss is not None and len(left):
        safe = left[points.low[left] >= 1 - loss]
        held = len(safe) > 0
        if not held:
            safe = left[points.retention[left] >= 1 - loss]
            safe = safe[_near_best(points.low[safe], NOISE)]
        left = safe
    if not len(left):
        return None
    time = (points.time, SAME_TIME, _near_least)
    kept = (points.low, NOISE, _near_best)
    filters: dict[str, list[tuple[Column, float, Near]]] = {
        "accuracy": [(points.low, TIE, _near_best), (points.complexity, 0.0, _near_least), time],
        "latency": [time, kept],
        "memory": [(points.memory, SAME_MEMORY, _near_least), kept, time],
    }
    alike = 0
    for values, tolerance, near in filters[objective]:
        left = left[near(values[left], tolerance)]
        alike = alike or len(left)
    order = np.lexsort((points.memory[left], points.complexity[left]))
    return Choice(int(left[order[0]]), alike, held)


def frontier(points: Points) -> Ints:
    """Indices of the frontier of usable points over memory, retention's lower end, TTFT and
    TPOT; by memory.

    Objectives are compared in steps (MEMORY_STEP, RETENTION_STEP, SAME_TIME): what differs by
    less is not known to differ. Of points that are equal so, the simplest stands for all, then
    the smallest.
    """
    usable = np.flatnonzero(points.retention >= USABLE)
    costs = [
        _log_steps(points.memory[usable], MEMORY_STEP),
        np.round(points.low[usable] / -RETENTION_STEP).astype(np.int64),
        _log_steps(points.ttft[usable], 1 + SAME_TIME),
        _log_steps(points.tpot[usable], 1 + SAME_TIME),
    ]
    mask = pareto_mask(costs)
    found = usable[mask]
    keys = [column[mask] for column in costs]
    order = np.lexsort((points.memory[found], points.complexity[found], *keys[::-1]))
    rows = np.stack(keys, axis=1)[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    one_each = found[order[first]]
    return one_each[np.argsort(points.memory[one_each], kind="stable")]


def spread(points: Points, among: Ints, keep: list[int], count: int = SHOWN) -> list[int]:
    """`count` points of `among` that are far from each other, and `keep`; by memory.

    Starts with `keep`, the smallest and the most accurate, and adds the point that is farthest
    from its nearest shown one, in log memory, retention and log time, each scaled to 0..1.
    What is predicted to keep less than SHOWN_RETENTION is left out, unless all are.
    """
    good = among[points.retention[among] >= SHOWN_RETENTION]
    among = good if len(good) else among
    if not len(among):
        return sorted(keep, key=lambda i: int(points.memory[i]))
    every = np.concatenate([among, np.array(keep, dtype=np.int64)])
    axes = (
        np.log(points.memory[every]),
        points.low[every],
        np.log(points.time[every]),
    )
    place = np.stack([(a - a.min()) / (np.ptp(a) or 1.0) for a in axes], axis=1)
    shown = [len(among) + i for i in range(len(keep))]
    shown += [0, int(np.argmax(points.low[among]))]
    distance = np.min([((place - place[i]) ** 2).sum(axis=1) for i in shown], axis=0)
    while len({int(every[i]) for i in shown}) < min(count, len(among)) and distance.max() > 0:
        farthest = int(np.argmax(distance))
        shown.append(farthest)
        distance = np.minimum(distance, ((place - place[farthest]) ** 2).sum(axis=1))
    return sorted({int(every[i]) for i in shown}, key=lambda i: int(points.memory[i]))


def next_up(points: Points, among: Ints, chosen: int, budget: int) -> int | None:
    """The smallest point beyond the budget that is WORTH it, or the fastest near it in memory."""
    better = among[
        (points.memory[among] > budget) & (points.low[among] >= points.low[chosen] + WORTH)
    ]
    if not len(better):
        return None
    near = better[_near_least(points.memory[better], SAME_MEMORY)]
    return int(near[np.argmin(points.time[near])])


def next_down(points: Points, among: Ints, chosen: int) -> int | None:
    """The most accurate point that needs at least a tenth less memory."""
    smaller = among[points.memory[among] <= 0.9 * points.memory[chosen]]
    if not len(smaller):
        return None
    best = smaller[_near_best(points.low[smaller], NOISE)]
    return int(best[np.argmin(points.time[best])])


def _near_best(values: Column, tolerance: float) -> Mask:
    return values >= values.max(initial=-np.inf) - tolerance


def _near_least(values: Column, tolerance: float) -> Mask:
    found: Mask = values <= values.min() * (1 + tolerance)
    return found


def _log_steps(values: Column, step: float) -> Ints:
    return np.round(np.log(values) / np.log(step)).astype(np.int64)
