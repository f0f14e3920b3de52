"""What a calibration measured, for a person."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from .layout.folding import folded
from .layout.tables import rows_that_fit


def print_calibration(document: Mapping[str, Any], console: Console) -> None:
    """A line a row, then why it ended, how good the fit is, and where the profile lies."""
    rows = []
    for row in document["rows"]:
        score = f"{row['score']:.3f}" if row["score"] is not None else row["outcome"]
        kept, error = (_number(row[name]) for name in ("retention", "retention_sd"))
        rows.append((row["config"], f"{row['context']:,}", row["task"], score, kept, error))
    titles = "configuration", "context", "task", "score", "retention", "±"
    table = rows_that_fit(titles, rows, console.width, left=(0, 2))
    console.print(table, highlight=False, markup=False, crop=False)
    lines = ["", f"{document['reason'].capitalize()}."]
    if document["expected_error"] is not None:
        points = 100 * document["expected_error"]
        lines.append(f"Expected error of the frontier: {points:.1f} points of retention.")
    held_out = document["held_out"]
    if held_out:
        lines.append(
            f"Predictions of {held_out['rows']} rows that the fit did not have: mean error "
            f"{100 * held_out['mae']:.1f} points; {held_out['coverage']:.0%} lie within their 90 % "
            "intervals."
        )
    if document["expected_everywhere"] is not None:
        lines.append(
            "Those rows were run because the fit was least sure of them. Over all configurations "
            f"{100 * document['expected_everywhere']:.1f} points are expected."
        )
    lines += [f"{line}." for line in document["findings"]]
    lines += [f"Profile: {document['folder']}", "`kvpareto plan` now uses this profile."]
    for line in lines:
        text = "\n".join(folded(line, console.width))
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
