"""The Pareto frontier: the points that no other point beats in every objective at once.

Exact, vectorized with numpy. All objectives but the first span a grid whose cells keep the
smallest first objective of all points at or below them. A point is dominated if the cells
below its own hold something as good. Where every axis of the grid has one cell a value, as
with objectives that come in steps, this is the whole answer. Else the grid throws out what it
can, and what is left is taken in the order of the sum of its parts: whatever dominates a point
has a sum no larger, so the first points are tested among themselves only, and then remove
what they dominate from the rest.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 32  # points tested among themselves at a time
_CELLS = 2**15  # of a grid that only throws out: a table that stays in the processor's cache
_MOST_CELLS = 2**22  # of a grid that is the whole answer

Column = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def pareto_mask(costs: list[Column]) -> Mask:
    """Which points no other point dominates; `costs` is one array an objective, smaller is better.

    A point dominates another if it is no worse in every objective and better in one. Equal
    points do not dominate each other: all of them stay or none does. NaN is not allowed.
    """
    if len(costs[0]) == 0:
        return np.zeros(0, dtype=bool)
    # The objective of most values is the one that needs no axis of the grid.
    first, *others = sorted(map(np.asarray, costs), key=_levels, reverse=True)
    levels = [_levels(column) for column in others]
    whole = all(levels) and math.prod(levels) <= _MOST_CELLS
    if whole:
        codes, sizes = [column - column.min() for column in others], levels
    else:
        sizes = [max(2, int(_CELLS ** (1 / len(others))))] * len(others)
        codes = [_bins(column, size) for column, size in zip(others, sizes, strict=True)]
    mask = ~_beaten_on_grid(first, codes, sizes, whole)
    if not whole:
        survivors = np.flatnonzero(mask)
        mask[survivors] = _exact([column[survivors] for column in (first, *others)])
    return mask


def _levels(column: Column) -> int:
    """Cells an axis needs to have one for each value; 0 for values that are not integers."""
    return int(np.ptp(column)) + 1 if np.issubdtype(column.dtype, np.integer) else 0


def _beaten_on_grid(first: Column, codes: list[Column], sizes: list[int], whole: bool) -> Mask:
    """Points that some other point beats; all of them where `whole`.

    Cell 0 of each axis is empty, so that "one lower" always exists.
    """
    strides = [math.prod(size + 1 for size in sizes[i + 1 :]) for i in range(len(sizes))]
    cell = np.zeros(len(first), dtype=np.intp)
    for code, stride in zip(codes, strides, strict=True):
        cell += (code + 1) * stride
    # best[i, j, k]: the smallest first objective of all points in cells <= i, j, k.
    integral = np.issubdtype(first.dtype, np.integer)
    nothing = np.iinfo(first.dtype).max if integral else np.inf
    best = np.full(math.prod(size + 1 for size in sizes), nothing, dtype=first.dtype)
    np.minimum.at(best, cell, first)
    table = best.reshape([size + 1 for size in sizes])
    for axis in range(len(sizes)):
        np.minimum.accumulate(table, axis=axis, out=table)
    beaten: Mask
    if not whole:
        # Within a bin values differ, so only a bin that is lower along every axis is better.
        return best[cell - sum(strides)] <= first
    beaten = best[cell] < first
    for stride in strides:
        beaten |= best[cell - stride] <= first
    return beaten


def _bins(column: Column, size: int) -> npt.NDArray[np.intp]:
    """`column` on `size` bins: a larger bin holds strictly larger values, never the reverse.

    The edges are quantiles of a sample, so that no bin holds most of the points.
    """
    sample = np.sort(column[:: max(1, len(column) // 4096)])
    edges = sample[np.linspace(0, len(sample) - 1, size + 1).astype(np.intp)[1:-1]]
    return np.searchsorted(edges, column, side="right")


def _exact(costs: list[Column]) -> Mask:
    mask = np.zeros(len(costs[0]), dtype=bool)
    order = np.argsort(_sum_of_parts(costs), kind="stable")
    left = [column[order] for column in costs]
    while len(order):
        block = [column[:_BLOCK] for column in left]
        kept = ~_dominated(block, block)
        mask[order[:_BLOCK][kept]] = True
        alive = ~_dominated([column[_BLOCK:] for column in left], [c[kept] for c in block])
        left, order = [column[_BLOCK:][alive] for column in left], order[_BLOCK:][alive]
    # Two sums may round to the same number, and then the dominated one may have come first.
    winners = [column[mask] for column in costs]
    mask[mask] = ~_dominated(winners, winners)
    return mask


def _sum_of_parts(costs: list[Column]) -> npt.NDArray[np.float64]:
    """Each objective scaled to 0..1, and summed: never larger for a point that dominates."""
    total = np.zeros(len(costs[0]))
    for column in costs:
        low = column.min()
        total += (column - low) / ((column.max() - low) or 1)
    return total


def _dominated(points: list[Column], by: list[Column]) -> Mask:
    """Which `points` some point of `by` dominates; both are one column an objective."""
    shape = len(by[0]), len(points[0])
    no_worse, better = np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for column, other in zip(points, by, strict=True):
        no_worse &= column >= other[:, None]
        better |= column > other[:, None]
    return np.any(no_worse & better, axis=0)
