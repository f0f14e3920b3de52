"""Which point of a space is recommended, and which are shown beside it. Rules only, no sentences.

A point fits when the upper end of its predicted memory does, and is safe when the lower end of its
predicted retention keeps what must be kept. Where none that fits is safe, none is recommended.
Among the safe ones

    1  those with 2-bit keys or values are left out, unless the model's own calibration speaks for
       them or the risk is accepted; those with chunks that nobody runs are, where others are left
       and none of them is better than what is found without them in all respects; and but for the
       least memory, those whose first token takes SLOW_PREFILL times as long as another's
    2  filters leave what is as good as the best by

           accuracy  retention's lower end, then retention itself, then simplicity, then (of files
                     in several types, where half of the memory stays free) retention once more,
                     then time
           latency   time for prompt and output, then retention's lower end, then simplicity
           memory    the upper end of memory, then retention's lower end, then simplicity

    3  of what is left the fastest are taken, then the simplest of them, then the smallest;
    4  and where a chunk alone makes that smaller, and nothing worse, in chunks.

Two retentions are alike where their lower ends differ by no more than the best one's prediction
lies above its own lower end: that is what its interval resolves, and NOISE at least. Predictions
are alike within NOISE, times within SAME_TIME, memories within SAME_MEMORY. So of plans that
promise the same, the one that people run wins, and what is certain to lose nothing, the plain
model, wins where it fits.

With the risk accepted, a loss is held by the prediction itself, and points near the highest lower
end are left to choose from.
"""

from collections.abc import Sequence

import numpy as np

from ..light_dataclass import dataclass
from .pareto import pareto_mask
from .point_arrays import Column, Ints, Mask, PointArrays
from .tie_breaking import NOISE, SAME_MEMORY, SAME_TIME, filters, near_least, resolution

USABLE = 0.5
SLOW_PREFILL = 4.0
"""Times the fastest safe point's TTFT that nobody would wait: short chunks of a long prompt."""
WORTH = 0.01
"""Retention that a step up must add to be worth more memory."""
RETENTION_STEP, MEMORY_STEP = 0.0025, 1.005
"""Resolution of the frontier: below it, differences are no differences."""
SHOWN, SHOWN_RETENTION = 10, 0.9


@dataclass(frozen=True, slots=True)
class Choice:
    """`index` of the point; `alike`: how many were as good by the objective; `safe`: whether the
    lower end of retention keeps what must be kept; `saved`: bytes that its chunk needs less than
    the simplest of these."""

    index: int
    alike: int
    safe: bool = True
    saved: int = 0


def choose(
    points: PointArrays,
    fitting: Mask,
    objective: str,
    loss: float | None,
    risk: bool = False,
    roomy: Mask | None = None,
) -> Choice | None:
    """The point to recommend; None where nothing that fits is safe.

    `loss` is held by the lower end; where none that fits holds it and `risk` is accepted, by the
    prediction. None: whatever is usable, by the best lower end. `roomy`: tie_breaking.filters.
    """
    usable = fitting & (points.retention >= USABLE)
    kept = safe_points(points, loss) & usable
    safe = bool(kept.any())
    if not safe and risk:
        kept = usable & (points.retention >= 1 - (loss if loss is not None else 1))
        kept &= points.low >= points.low[kept].max(initial=0.0) - NOISE
    usual = kept & points.usual
    left = np.flatnonzero(usual if usual.any() else kept)
    if not len(left):
        return None
    index, alike = _best(points, left, objective, roomy)
    better = np.flatnonzero(kept & ~points.usual & _better(points, index))
    if len(better):
        index, alike = _best(points, better, objective, roomy)
    simplest = index
    index = _in_chunks(points, simplest, np.append(left, better))
    return Choice(index, alike, safe, int(points.memory[simplest] - points.memory[index]))


def _best(points: PointArrays, left: Ints, objective: str, roomy: Mask | None) -> tuple[int, int]:
    """The best by the objective of those `left`, and how many were as good."""
    if objective != "memory":
        left = left[points.ttft[left] <= SLOW_PREFILL * points.ttft[left].min()]
    alike = 0
    for leave in filters(points, roomy)[objective]:
        left = left[leave(left)]
        alike = alike or len(left)
    order = np.lexsort((points.memory[left], points.complexity[left]))
    return int(left[order[0]]), alike


def _better(points: PointArrays, index: int) -> Mask:
    """Where more is promised than at `index`, with no more memory and no more time: more than what
    the interval of what is promised resolves."""
    better: Mask = points.low > points.low[index] + resolution(points)
    for column in (points.memory, points.ttft, points.tpot):
        better &= column <= column[index]
    return better


def _in_chunks(points: PointArrays, chosen: int, may: Ints) -> int:
    """The point of `may` that outdoes the chosen one by a chunk alone (one point of complexity), in
    memory by more than SAME_MEMORY: of the fastest the smallest. The chosen one where none does."""
    better = np.array(outdone_by(points, chosen, may.tolist()), dtype=np.int64)
    better = better[points.complexity[better] <= points.complexity[chosen] + 1]
    better = better[points.memory[better] * (1 + SAME_MEMORY) < points.memory[chosen]]
    if not len(better):
        return chosen
    near = better[near_least(points.time[better], SAME_TIME)]
    return int(near[np.argmin(points.memory[near])])


def safe_points(points: PointArrays, loss: float | None) -> Mask:
    """Points that may be recommended and keep at least 1 - `loss` at the lower end; none where
    no loss is named, for then nothing is promised."""
    if loss is None:
        return np.zeros(len(points.low), dtype=bool)
    return points.allowed & (points.low >= 1 - loss) & (points.retention >= USABLE)


def enough(low: Column, retention: Column, loss: float | None, risk: bool) -> Mask:
    """Where what is kept may do: at the lower end, or with the risk accepted by the prediction."""
    kept: Mask = retention >= USABLE
    if loss is not None:
        kept &= (retention if risk else low) >= 1 - loss
    return kept


def frontier(points: PointArrays, among: Mask | None = None) -> Ints:
    """Indices of the frontier of usable points (those of `among`) over memory, retention's lower
    end, TTFT and TPOT; by memory.

    Objectives are compared in steps (MEMORY_STEP, RETENTION_STEP, SAME_TIME): what differs by
    less is not known to differ. Of points that are equal so, the simplest stands for all, then
    the smallest.
    """
    mask = points.retention >= USABLE
    usable = np.flatnonzero(mask if among is None else mask & among)
    costs = [
        _log_steps(points.memory[usable], MEMORY_STEP),
        np.round(points.low[usable] / -RETENTION_STEP).astype(np.int64),
        _log_steps(points.ttft[usable], 1 + SAME_TIME),
        _log_steps(points.tpot[usable], 1 + SAME_TIME),
    ]
    mask = pareto_mask(costs)
    indices = usable[mask]
    keys = [column[mask] for column in costs]
    order = np.lexsort((points.memory[indices], points.complexity[indices], *keys[::-1]))
    rows = np.stack(keys, axis=1)[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    one_each = indices[order[first]]
    return one_each[np.argsort(points.memory[one_each], kind="stable")]


def spread(points: PointArrays, among: Ints, keep: list[int], count: int = SHOWN) -> list[int]:
    """`count` points of `among` that are far from each other, and `keep`; by memory.

    Starts with `keep`, the smallest and the most accurate, and adds the point that is farthest
    from its nearest shown one, in log memory, retention and log time, each scaled to 0..1.
    What is not sure to keep SHOWN_RETENTION is left out, unless all are.
    """
    good = among[points.low[among] >= SHOWN_RETENTION]
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


def outdone_by(points: PointArrays, chosen: int, among: Sequence[int]) -> list[int]:
    """Those of `among` that are no worse in memory, TTFT, TPOT and retention (its lower end), and
    better in one."""
    indices = np.asarray(among, dtype=np.int64)
    columns = points.memory, points.ttft, points.tpot, -points.low
    no_worse = np.all([column[indices] <= column[chosen] for column in columns], axis=0)
    better = np.any([column[indices] < column[chosen] for column in columns], axis=0)
    return [int(i) for i in indices[no_worse & better]]


def next_up(points: PointArrays, chosen: int, budget: int, loss: float | None) -> int | None:
    """The simplest of the smallest usual points beyond the budget that are safe and WORTH it."""
    better = points.usual & safe_points(points, loss) & (points.memory > budget)
    left = np.flatnonzero(better & (points.low >= points.low[chosen] + WORTH))
    if not len(left):
        return None
    near = left[near_least(points.memory[left], SAME_MEMORY)]
    order = np.lexsort((points.memory[near], points.time[near], points.complexity[near]))
    return int(near[order[0]])


def next_down(points: PointArrays, chosen: int, loss: float | None) -> int | None:
    """What is recommended to who has a tenth less memory than the chosen point takes."""
    smaller = choose(points, points.memory <= 0.9 * points.memory[chosen], "accuracy", loss)
    return smaller.index if smaller is not None else None


def _log_steps(values: Column, step: float) -> Ints:
    return np.round(np.log(values) / np.log(step)).astype(np.int64)
