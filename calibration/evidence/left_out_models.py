"""Small real models, predicted from published rows alone, and how many points of them ship.

    python -m kvpareto.calibration.evidence.left_out_models

No row of the four models is in the shared fit. SmolLM2-135M and Gemma-3-270M are predicted by the
shipped fit, the two Qwen2.5-Coder by a fit without Qwen2.5 and what was made of it. Where a table
of a model's keys ships, it is predicted without it and with it. Intervals are the fit's own: what
plans add to the upper end of rotated keys was learnt from one of these models and is left off.

A point is a model under one configuration at one context; its text and its tasks are one point.
`make check` holds the page to the points that ship.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.predict import published
from ...planner.accuracy.predictor import Predictor
from ..fit.accuracy_rows import AccuracyRow
from ..fit.cross_validation import predict_rows
from ..fit.measured_models import SOURCES, measured_rows
from ..fit.mixed_effects import KnownModel
from ..real_models.rows import CHOICES, DIVERGENCE, TASKS, read_rows
from .cliff_table import LARGER, MODEL, blind_predictor, larger_rows
from .left_out_sources import FALLEN_HELD, HELD, ForeseenRows
from .marked_tables import markdown_table, write_tables

NAMES = {
    "smollm2-135m": "SmolLM2-135M",
    "gemma-3-270m": "Gemma-3-270M",
    MODEL: "Qwen2.5-Coder-0.5B",
    LARGER: "Qwen2.5-Coder-1.5B, text alone",
}
KIN_LEFT_OUT = (MODEL, LARGER)

DESIGN = ("real_*.jsonl", "cpu_qwen15.jsonl")
SAME_BYTES = ("same_bytes_*.jsonl",)
Point = tuple[str, int]
"""Configuration and context."""


def judge(
    predictor: Predictor,
    models: Mapping[str, KnownModel],
    rows: Sequence[AccuracyRow],
    *,
    read: bool,
) -> ForeseenRows:
    """Rows of one model, foreseen as those of a stranger: with its table of keys if `read`."""
    features = models[rows[0].model].features
    effects = predictor.models.unseen(features if read else replace(features, ranges=None))
    low, predicted, high = (
        predict_rows(predictor, effects, rows, models, z) for z in (effects.z, 0.0, -effects.z)
    )
    return ForeseenRows(tuple(rows), low, predicted, high)


def judged_models() -> dict[tuple[str, bool], ForeseenRows]:
    """Of each model, and whether its keys were read."""
    blind, models = blind_predictor()
    measured = [*measured_rows(), *(row for _, row in larger_rows())]
    found: dict[tuple[str, bool], ForeseenRows] = {}
    for key in NAMES:
        rows = [row for row in measured if row.model == key]
        predictor = blind if key in KIN_LEFT_OUT else published()
        for read in (False, True):
            if not read or models[key].features.ranges is not None:
                found[key, read] = judge(predictor, models, rows, read=read)
    return found


def left_out_table(found: Mapping[tuple[str, bool], ForeseenRows]) -> str:
    lines: list[list[object]] = []
    for (key, read), judged in found.items():
        errors, held = judged.errors, judged.held
        lines.append(
            [
                NAMES[key],
                "read" if read else "not read",
                len(judged.rows),
                float(errors.mean()),
                _mean(errors, judged.is_text),
                _mean(errors, ~judged.is_text),
                float(held.mean()),
                _mean(held, judged.whole_weights),
                int(judged.fallen.sum()),
                _mean(held, judged.fallen),
                float((judged.high - judged.low).mean()),
                "yes" if judged.reaches else "no",
            ]
        )
    header = ["model", "keys", "rows", "MAE", "of text", "of tasks", "coverage"]
    header += ["16-bit weights", "below 0.9", "coverage there", "mean width"]
    return markdown_table([*header, f"{HELD:.2f} and {FALLEN_HELD:.1f} reached"], lines)


def _mean(values: Floats, part: NDArray[np.bool_]) -> float | str:
    """Mean of a part of the rows; a dash where it is empty."""
    return float(values[part].mean()) if part.any() else "–"


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


def main(arguments: Sequence[str] | None = None) -> None:
    del arguments
    tables = {"left_out": left_out_table(judged_models()), "points": points_table()}
    print("\n\n".join(tables.values()))
    write_tables(tables)


if __name__ == "__main__":
    main()
