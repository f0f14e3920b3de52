"""Models with other layers than plain attention, as a card ran them: held to this planner."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.layers.layer_shapes import spec_of
from benchmarks.layers.layer_tables import off, summary
from benchmarks.measure.row_file import read
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.workload import Workload

ROOT = Path(__file__).parents[1]
ROWS = read(ROOT / "profiles/calibrations/layers_h200.jsonl")
EIGHT_MODELS = 8


def test_no_plan_was_out_of_memory_and_totals_were_met() -> None:
    gaps = [off(row) for row in ROWS]
    assert all(row["outcome"] == "ok" for row in ROWS)
    assert len({row["key"][0] for row in ROWS}) >= EIGHT_MODELS
    assert median(gaps) <= 0.01
    assert max(gaps) <= 0.03
    for row in ROWS:
        assert row["execution"]["device_used"] <= row["predicted"]["total_high"]
        assert row["execution"]["kv"] == row["predicted"]["kv"]
        assert row["check"]["same_tokens"] == 1


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row["key"])))
def test_todays_planner_says_as_much(row: dict[str, Any]) -> None:
    model, text, context, batch = row["key"]
    spec = spec_of(model)
    work = Workload(context, row["execution"]["output"], batch)
    size = estimate(spec, Configuration.parse(text), work, KVPARETO, find_gpu("H200"))
    used = row["execution"]["device_used"]
    assert abs(size.total / used - 1) <= 0.03
    assert used <= size.total_high


def test_the_docs_show_these_rows() -> None:
    table = summary(ROWS)
    assert table in (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
