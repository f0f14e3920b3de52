"""Models with other layers than plain attention, as a card ran them: held to this planner."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.layers.layer_shapes import spec_of
from benchmarks.layers.layer_tables import line, off, summary
from benchmarks.measure.row_file import read
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.workload import Workload

ROOT = Path(__file__).parents[1]
ROWS = read(ROOT / "profiles/calibrations/layers_h200.jsonl")
PLANS, MODELS = 34, 17


def test_no_plan_was_out_of_memory_and_totals_were_met() -> None:
    gaps = [off(row) for row in ROWS]
    assert all(row["outcome"] == "ok" for row in ROWS)
    assert len(ROWS) >= PLANS
    assert len({row["key"][0] for row in ROWS}) >= MODELS
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
    used, peaks = row["execution"]["device_used"], row["execution"]["peaks"]
    assert abs(size.total / used - 1) <= 0.015
    assert used <= size.total_high
    # The allocator's own count, slack and context aside; loading is not planned.
    assert abs(size.allocated_peak / max(peaks["prefill"], peaks["decode"]) - 1) <= 0.01


def test_the_docs_show_these_rows() -> None:
    table = summary(ROWS)
    assert table in (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")


def test_what_others_hold_is_asked_before_torch_has_a_context(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks.layers import verify_layers
    from benchmarks.measure.row_file import RowFile
    from kvpareto.calibration.execution import memory_cap

    asked: list[str] = []
    monkeypatch.setattr(memory_cap, "numbered", str)
    monkeypatch.setattr(memory_cap, "memory_of", lambda _: asked.append("others"))
    monkeypatch.setattr(verify_layers, "_device_name", lambda: asked.append("name") or "H200")
    verify_layers.run_all([], RowFile(tmp_path / "rows.jsonl"), 1)
    assert asked[0] == "others"


def test_a_plan_that_ran_out_of_memory_is_counted_and_not_timed() -> None:
    lost = ROWS[0] | {"outcome": "out_of_memory", "reason": "the cache does not fit"}
    lost["execution"] = {k: v for k, v in lost["execution"].items() if k != "tpot_s"}
    told = summary([*ROWS, lost])
    assert f"{len(ROWS) + 1} plans of" in told
    assert ", 1 not within the cap" in told
    assert line(lost).endswith("out_of_memory: the cache does not fit")
