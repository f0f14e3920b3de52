"""How many points of real models ship, by model: the table in docs/accuracy.md.

    python -m kvpareto.calibration.evidence.real_model_points

A point is a model under one configuration at one context; its text and its tasks are one point.
`make check` holds the page to the shipped rows.
"""

from collections.abc import Sequence
from pathlib import Path

from ..fit.measured_models import SOURCES
from ..real_models.rows import CHOICES, DIVERGENCE, TASKS, read_rows
from .accuracy_tables import markdown_table, with_tables
from .refit_published import DOCS

DESIGN = ("real_*.jsonl", "cpu_qwen15.jsonl")
SAME_BYTES = ("same_bytes_*.jsonl",)
Point = tuple[str, int]
"""Configuration and context."""


def points_of(
    patterns: Sequence[str], kinds: Sequence[str], folder: Path = SOURCES
) -> dict[str, set[Point]]:
    """Points of each model in the files of these names, of some kinds of measurement."""
    found: dict[str, set[Point]] = {}
    for pattern in patterns:
        for _, row in read_rows(folder.glob(pattern)):
            if row["kind"] in kinds:
                found.setdefault(row["model"], set()).add((row["config"], row["context"]))
    return found


def points_table(folder: Path = SOURCES) -> str:
    columns = [
        points_of(patterns, kinds, folder)
        for patterns in (DESIGN, SAME_BYTES)
        for kinds in ((DIVERGENCE,), (TASKS, CHOICES))
    ]
    models = sorted({model for column in columns for model in column})
    counts = []
    for model in models:
        own = [column.get(model, set()) for column in columns]
        counts.append([*map(len, own), len(set[Point]().union(*own))])
    lines = [[model, *own] for model, own in zip(models, counts, strict=True)]
    total = ["all", *(sum(column) for column in zip(*counts, strict=True))]
    header = ["model", "text", "tasks", "same bytes, text", "same bytes, tasks", "points"]
    return markdown_table(header, [*lines, total])


def with_points(page: str) -> str:
    """docs/accuracy.md with the table as the shipped rows have it."""
    return with_tables(page, {"points": points_table()})


def main(arguments: Sequence[str] | None = None) -> None:
    del arguments
    DOCS.write_text(with_points(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
    print(points_table())


if __name__ == "__main__":
    main()
