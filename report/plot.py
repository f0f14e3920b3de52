"""A scatter plot in plain text: the frontier as a picture in 80 columns, without colour.

Small on purpose: a plotting library would cost more start-up time than the whole plan.
"""

from collections.abc import Sequence

from ..planner.light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """One point: `x` and `y` in data units, drawn as the single character `symbol`."""

    x: float
    y: float
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

    `x_limit` draws a vertical line (a budget). Axis ends are labelled with their values;
    `y` values are fractions and shown in percent. Returns lines joined by newlines.
    """
    if not marks:
        return ""
    xs = [m.x for m in marks] + ([x_limit] if x_limit is not None else [])
    x_low, x_high = _span(xs)
    y_low, y_high = _span([m.y for m in marks])
    grid = [[" "] * width for _ in range(height)]
    if x_limit is not None:
        column = _cell(x_limit, x_low, x_high, width)
        for row in grid:
            row[column] = "┊"
    for mark in marks:
        row_index = height - 1 - _cell(mark.y, y_low, y_high, height)
        grid[row_index][_cell(mark.x, x_low, x_high, width)] = mark.symbol
    lines = [y_label]
    for index, row in enumerate(grid):
        label = {0: f"{100 * y_high:.1f} %", height - 1: f"{100 * y_low:.1f} %"}.get(index, "")
        lines.append(f"{label:>8} │{''.join(row).rstrip()}")
    lines.append(" " * 9 + "└" + "─" * width)
    ends = f"{x_low:.1f}", f"{x_high:.1f} {x_label}"
    lines.append(" " * 10 + ends[0] + ends[1].rjust(width - len(ends[0])))
    return "\n".join(lines)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest value, held apart so that one point still has a place."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1))


def _cell(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1))
