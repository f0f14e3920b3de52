"""Granite 4's page: its tables are those of the rows that ship, which are held to their plans."""

from pathlib import Path

import pytest

from benchmarks.layers.granite_frontier import (
    ANSWERS,
    answers_table,
    cache_share,
    frontier_rows,
    frontier_table,
)
from benchmarks.layers.layer_tables import off
from kvpareto.calibration.grid.reading import GridRun, read_runs
from kvpareto.planner.accuracy.measured_configs import MeasuredRetention
from kvpareto.planner.formats.configuration import Configuration

PAGE = Path(__file__).parents[1] / "docs" / "granite4.md"


def test_the_page_shows_what_was_measured() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert frontier_table(frontier_rows()) in text
    assert answers_table(read_runs(ANSWERS)) in text


def test_answers_of_both_small_models_stand_side_by_side() -> None:
    config, kept = Configuration.parse("w16a16-k4v4-g64"), MeasuredRetention(0.75, 0.02)
    runs = [
        GridRun(model, config, 1024, {"retrieval": kept}, kept)
        for model in ("recall", "granite-hybrid", "other")
    ]
    only_one = GridRun("recall", Configuration.parse("w16a16-k8v8-g64"), 1024, {}, kept)
    assert answers_table([*runs, only_one]).splitlines() == [
        "| configuration | hybrid: retrieval | attention alone: retrieval |",
        "|---|---|---|",
        "| `w16a16-k4v4-g64` | 0.750 ± 0.020 | 0.750 ± 0.020 |",
    ]


def test_every_plan_was_within_its_cap_and_near_its_prediction() -> None:
    rows = frontier_rows()
    assert len(rows) >= 14
    for row in rows:
        run = row["execution"]
        assert run["device_used"] <= row["predicted"]["total_high"]
        assert run["kv"] == row["predicted"]["kv"]
        assert off(row) <= 0.03


@pytest.mark.parametrize(
    ("model", "share"), [("granite-4.0-micro", 0.5313), ("granite-4.0-h-micro", 0.5625)]
)
def test_states_are_a_part_of_a_hybrids_cache_that_no_format_shrinks(
    model: str, share: float
) -> None:
    """64 channels of 8 bits and their pair are 68 of 128 bytes; a hybrid keeps 76 MB of states."""
    assert cache_share(model, "w16a16-k8v8-g64") == pytest.approx(share, abs=5e-4)
