"""The frontier of a plan as a table and a picture, as wide as the terminal allows.

A configuration is never broken: where it and its numbers do not fit into one line, columns are left
out from the right, and at last each configuration has a line of its own above its numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ..planner.units import GB, format_bytes
from .layout.folding import folded
from .lines import KEPT
from .numbers import percent, seconds
from .plot import Mark, scatter

Document = Mapping[str, Any]
_GAP = 2
_LEGEND = "predicted loss, log scale: o@frontier, *@recommended, ╎@interval, ┊@budget".replace(
    "@", KEPT
)
"""A mark stays beside its name."""
_LEAST = 3
"""Columns beside the configuration below which it gets a line of its own."""


def print_frontier(document: Document, console: Console) -> None:
    """About ten points by memory, and all of them in a picture."""
    console.print(
        f"Frontier ({len(document['shown'])} of {len(document['frontier'])} points, "
        f"{document['considered']:,} configurations considered)",
        highlight=False,
    )
    rows = _rows(document)
    styles = {"*": "bold", "beyond": "dim"}
    print_rows(rows, console, [styles.get(r[0]) or styles.get(r[2], "") for r in rows])
    if document["relative_latency"]:
        console.print(
            "TTFT and TPOT are multiples of the recommended one's, by the roofline of an "
            f"{document['relative_latency']['gpu']}; --gpu shows the seconds of yours",
            highlight=False,
        )
    console.print()
    console.print(_picture(document, console.width), soft_wrap=True)


def print_rows(rows: Sequence[Sequence[str]], console: Console, styles: Sequence[str]) -> None:
    """Rows of a mark, a configuration and its numbers; the first row holds their names."""
    kept = _columns_that_fit(rows, console.width)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row, style in zip(rows, styles, strict=True):
        if kept >= _LEAST:
            named = f"{row[0].ljust(widths[0])} {row[1].ljust(widths[1])}"
            numbers = [row[i].rjust(widths[i]) for i in range(2, len(row))]
            console.print(Text((" " * _GAP).join([named, *numbers[:kept]]), style), soft_wrap=True)
        else:
            console.print(Text(f"{row[0].ljust(widths[0])} {row[1]}", style), soft_wrap=True)
            console.print(Text("    " + ", ".join(filter(None, row[2:6])), style))


def _rows(document: Document) -> list[list[str]]:
    """The heading and a row for each shown point: mark, configuration, then its numbers."""
    rows = [["", "configuration", "", "total", "retention", "at least", "TTFT", "TPOT"]]
    by_config = {point["config"]: point for point in document["frontier"]}
    by_config |= {p["config"]: p for p in (document["recommended"], document["next_up"]) if p}
    relative = (document["relative_latency"] or {"points": {}})["points"]
    for point in (by_config[config] for config in document["shown"]):
        here = point["config"] == document["recommended"]["config"]
        fits = point["memory"]["total_high"] <= document["budget"]
        times = relative.get(point["config"])
        rows.append(
            [
                "*" if here else "",
                point["config"],
                "fits" if fits else "beyond",
                format_bytes(point["memory"]["total"]),
                percent(point["accuracy"]["retention"]),
                percent(point["accuracy"]["low"]),
                *(
                    f"{times[key]:.2f}x" if times else seconds(point[f"{key}_s"])
                    for key in ("ttft", "tpot")
                ),
            ]
        )
    return rows


def _columns_that_fit(rows: Sequence[Sequence[str]], width: int) -> int:
    """How many of the columns behind the configuration fit into a line."""
    used = 2 + max(len(row[1]) for row in rows)
    for number in range(2, len(rows[0])):
        used += _GAP + max(len(row[number]) for row in rows)
        if used > width:
            return number - 2
    return len(rows[0]) - 2


def _picture(document: Document, width: int) -> Text:
    best = document["recommended"]
    marks = [_mark(point, "o") for point in document["frontier"]]
    picture = scatter(
        [*marks, _mark(best, "*")],
        x_label="GB",
        y_label="\n".join(folded(_LEGEND, width)),
        x_limit=document["budget"] / GB,
        width=max(20, min(60, width - 12)),
    )
    return Text(picture)


def _mark(point: Document, symbol: str) -> Mark:
    """Only the recommended point has its interval drawn: sixty would hide each other."""
    accuracy = point["accuracy"]
    loss = 1 - accuracy["retention"]
    ends = (1 - accuracy["high"], 1 - accuracy["low"]) if symbol == "*" else (loss, loss)
    return Mark(point["memory"]["total"] / GB, loss, *ends, symbol)
