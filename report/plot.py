"""A scatter plot in plain text: losses with their intervals against memory, without colour.

Losses stand on a logarithmic scale, small ones on top, so that 0.3 % and 3 % are two places. It is
small on purpose: a plotting library would cost more start-up time than the whole plan.
"""

import math
from collections.abc import Sequence

from ..planner.light_dataclass import dataclass

LEAST_LOSS = 0.001
"""Losses below it are drawn there: no benchmark resolves them."""
_INTERVAL, _LIMIT = "╎", "┊"


@dataclass(frozen=True, slots=True)
class Mark:
    """A point: `x` in data units, its loss with both ends (fractions), drawn as `symbol`."""

    x: float
    loss: float
    low: float
    high: float
    symbol: str


def scatter(
    marks: Sequence[Mark],
    *,
    x_label: str,
    y_label: str,
    x_limit: float | None = None,
    width: int = 60,
    height: int = 10,
) -> str:
    """`marks` on a grid of `width` x `height` characters, later marks over earlier ones.

    A mark's interval is a column of `╎`; the lines of the last mark are not hidden. `x_limit` draws
    a vertical line (a budget). Axis ends are labelled with their values. Returns lines joined by
    newlines; nothing for no marks.
    """
    if not marks:
        return ""
    xs = [m.x for m in marks] + ([x_limit] if x_limit is not None else [])
    x_low, x_high = _span(xs)
    y_low, y_high = _span([_log(value) for m in marks for value in (m.loss, m.low, m.high)])
    grid = [[" "] * width for _ in range(height)]
    if x_limit is not None:
        column = _cell(x_limit, x_low, x_high, width)
        for row in grid:
            row[column] = _LIMIT

    def place(mark: Mark, loss: float) -> tuple[int, int]:
        return _cell(_log(loss), y_low, y_high, height), _cell(mark.x, x_low, x_high, width)

    for mark in marks:
        (first, column), (last, _) = place(mark, mark.low), place(mark, mark.high)
        for row_index in range(first, last + 1):
            grid[row_index][column] = _INTERVAL
    for mark in marks:
        row_index, column = place(mark, mark.loss)
        grid[row_index][column] = mark.symbol
    lines = [y_label]
    ends = {0: _percent(y_low), height - 1: _percent(y_high)}
    for index, row in enumerate(grid):
        lines.append(f"{ends.get(index, ''):>8} │{''.join(row).rstrip()}")
    lines.append(" " * 9 + "└" + "─" * width)
    left, right = f"{x_low:.1f}", f"{x_high:.1f} {x_label}"
    lines.append(" " * 10 + left + right.rjust(width - len(left)))
    return "\n".join(lines)


def _log(loss: float) -> float:
    return math.log10(max(loss, LEAST_LOSS))


def _percent(exponent: float) -> str:
    return f"{100 * 10**exponent:.3g} %"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest value, held apart so that one point still has a place."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1))


def _cell(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1))
