"""The loop closed on a real model, on the CPU: calibrate, plan, verify, plan again.

`recall` ships with this package and solves the generated tasks, so retention is measured.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.records.record_file import ROWS, read_records
from kvpareto.cli import run
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model

WORK = ["--context", "256"]
SMALL = ["--tasks", "needle-multikey", "--items", "3", "--device", "cpu"]
SHAPE = ["-m", "recall", *WORK, "--output", "4", "--json"]
PLAIN = ("w16a16-k16v16+pc64", "w16a16-k16v16+pc128", "w16a16-k16v16")


@pytest.mark.usefixtures("few_published_rows")
def test_calibrate_plan_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kvpareto(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = run(list(arguments))
        out, err = capsys.readouterr()
        assert out, err
        return code, json.loads(out)

    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    code, calibrated = kvpareto("calibrate", "-m", "recall", "--runs", "2", *WORK, *SMALL, "--json")
    assert code == 0
    assert calibrated["configurations"] == 2
    # one byte less than the unquantized model takes: something has to be packed
    sizes = [kvpareto("estimate", *SHAPE, "--config", c)[1]["memory"]["total_high"] for c in PLAIN]
    budget, saved = f"{min(sizes) - 1}B", tmp_path / "plan.json"
    code, planned = kvpareto("plan", *SHAPE, "--budget", budget, "--save", str(saved))
    assert code == 0
    best = planned["recommended"]
    config = Configuration.parse(best["config"])
    assert config.weight_bits == 16
    assert config.quantizes_kv
    assert best["accuracy"]["provenance"] in ("calibrated", "measured")

    code, receipt = kvpareto("verify", "--plan", str(saved), *SMALL, "--json")
    (task,) = receipt["tasks"]
    assert task["reference"] == 1.0  # the model finds what it is asked for
    assert task["reference_from"] == "measured now"  # other items than the calibration's
    assert task["predicted_low"] <= task["high"]
    assert task["inside"], task
    assert (code, receipt["verified"]) == (0, True), receipt["wrong"]
    terms = {term["name"]: term for term in receipt["terms"]}
    assert terms["kv"]["measured"] == best["memory"]["kv"]

    rows = read_records(calibrations.folder_of(load_model("recall")) / ROWS)
    assert receipt["rows_written"] == 3
    assert [row.task for row in rows[-3:]] == ["execution", "needle-multikey", "needle-multikey"]
    assert rows[-1].config == best["config"]
    assert rows[-1].retention == task["retention"]
    code, again = kvpareto("plan", *SHAPE, "--budget", budget)
    assert code == 0
    found = {p["config"]: p["accuracy"] for p in [*again["frontier"], again["recommended"]]}
    known = found.get(best["config"], {}).get("tasks", {}).get("retrieval")
    assert known is None or known["low"] <= task["retention"] <= max(known["high"], 1.0)
