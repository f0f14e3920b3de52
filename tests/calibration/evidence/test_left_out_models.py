"""Small real models from published rows alone, and how many points of them ship."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvpareto.calibration.evidence.cliff_table import LARGER, MODEL
from kvpareto.calibration.evidence.left_out_models import (
    NAMES,
    ForeseenRows,
    judged_models,
    left_out_table,
    points_table,
)
from kvpareto.calibration.evidence.marked_tables import shown_table
from kvpareto.calibration.fit.measured_models import measured_rows
from kvpareto.planner.accuracy.predict import published

DOCS = Path(__file__).parents[3] / "docs"
ROW = replace(measured_rows()[0], sd=0.0, weight_bits=16.0, kind="perplexity")


@pytest.fixture(scope="module")
def judged() -> dict[tuple[str, bool], ForeseenRows]:
    return judged_models()


def of(scores: list[float], low: float, high: float, kind: str = "perplexity") -> ForeseenRows:
    ends = [np.full(len(scores), end) for end in (low, (low + high) / 2, high)]
    return ForeseenRows(tuple(replace(ROW, retention=s, kind=kind) for s in scores), *ends)


def test_the_goal_is_of_all_rows_and_of_the_fallen() -> None:
    """87 of 100 and four fifths of those below .9. Harnesses differ by 1 %, ends are no wall."""
    kept = of([0.99] * 95 + [0.2] * 5, 0.9, 1.0)
    assert kept.held.mean() == 0.95
    assert not kept.reaches  # none of the five that fell
    assert of([0.95] * 87 + [1.0] * 13, 0.9, 0.96).held.mean() == 0.87
    assert of([0.95] * 87 + [1.0] * 13, 0.9, 0.96).reaches
    assert not of([0.95] * 86 + [1.0] * 14, 0.9, 0.96).reaches
    assert of([0.3] * 90 + [0.8] * 10, 0.2, 0.4).reaches


def test_columns_are_of_their_rows() -> None:
    rows = of([0.5, 1.0], 0.4, 0.8)
    tasks = of([0.7], 0.5, 0.7, "retrieval")
    both = ForeseenRows(
        rows.rows + tasks.rows,
        *(np.concatenate([getattr(rows, end), getattr(tasks, end)]) for end in ENDS),
    )
    line = left_out_table({(MODEL, True): both}).splitlines()[-1]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    # off by .1, .4 and .1; the second is not held; widths .4, .4 and .2
    assert cells[:5] == [NAMES[MODEL], "read", "3", "0.200", "0.250"]
    assert cells[5:] == ["0.100", "0.667", "0.667", "2", "1.000", "0.333", "no"]


ENDS = ("low", "predicted", "high")


def test_the_models_are_strangers(judged: dict[tuple[str, bool], ForeseenRows]) -> None:
    assert not set(NAMES) & set(published().payload["models"])
    assert {key for key, read in judged if read} == {MODEL, LARGER, "gemma-3-270m"}
    assert {key for key, read in judged if not read} == set(NAMES)
    for (key, _), one in judged.items():
        assert {row.model for row in one.rows} == {key}
        assert (one.low <= one.predicted).all()
        assert (one.predicted <= one.high).all()


def test_reading_the_keys_foresees_both_coders(
    judged: dict[tuple[str, bool], ForeseenRows],
) -> None:
    """What the page says."""
    for key in (MODEL, LARGER):
        blind, read = judged[key, False], judged[key, True]
        assert (read.high - read.low).mean() < 0.8 * (blind.high - blind.low).mean()
    larger, smaller = judged[LARGER, True], judged[MODEL, True]
    assert larger.errors.mean() < 0.45 * judged[LARGER, False].errors.mean()
    tasks = ~smaller.is_text
    assert smaller.errors[tasks].mean() < 0.85 * judged[MODEL, False].errors[tasks].mean()
    assert [key for key, one in judged.items() if not one.reaches] == [(LARGER, False)]


def test_the_page_has_the_table(judged: dict[tuple[str, bool], ForeseenRows]) -> None:
    shown, made = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
        for text in (shown_table("left_out", DOCS), left_out_table(judged))
    )
    assert len(shown) == len(made)
    for line, cells in zip(shown, made, strict=True):
        assert (line[:3], line[-1]) == (cells[:3], cells[-1])
        numbers = [[0.0 if c == "–" else float(c) for c in row[3:-1]] for row in (line, cells)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.006)


def test_a_point_is_a_configuration_at_a_context(tmp_path: Path) -> None:
    """Its text and its tasks are one, in whatever file; what failed is none."""
    header = {"environment": {}, "source": {}}
    text = {"model": "a/b", "kind": "divergence", "config": "w16a16-k8v8", "context": 1024}
    tasks = {**text, "kind": "tasks"}
    other = {**text, "context": 4096}
    failed = {**text, "context": 8192, "error": "out of memory"}
    for name, rows in {
        "real_a.jsonl": (header, text, text, tasks, other, failed),
        "same_bytes_a.jsonl": (header, text, {**text, "config": "w16a16-k4v4"}),
        "cpu_qwen15.jsonl": (header, {**text, "model": "a/c"}),
    }.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    assert points_table(tmp_path).splitlines()[2:] == [
        "| a/b | 2 | 1 | 2 | 0 | 3 |",
        "| a/c | 1 | 0 | 0 | 0 | 1 |",
        "| all | 3 | 1 | 2 | 0 | 4 |",
    ]


def test_the_page_has_the_counts_of_the_shipped_rows() -> None:
    assert shown_table("points", DOCS) == points_table()
