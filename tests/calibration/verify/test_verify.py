"""`kvpareto verify` from outside: receipts, what they say, and the rows that a run leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kvpareto.calibration.execution.run_record import Execution
from kvpareto.calibration.records.record_file import ROWS, read_records
from kvpareto.calibration.verify import verifier as verification
from kvpareto.calibration.verify.cases import predict
from kvpareto.cli import run
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.search.request import Request
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Workload
from tests.support.verify_runs import SHAPE, SPEC, STORIES, TYPED, verify
from tests.support.verify_runs import home as home
from tests.support.verify_runs import plan as plan

FIELDS = {
    "schema", "verified", "verdict", "wrong", "model", "fingerprint", "config", "engine",
    "context", "output", "batch", "random_weights", "device", "gpu", "budget", "outcome", "term",
    "cap", "terms", "peak_phase", "tasks", "retention", "corrected", "rows_written", "execution",
    "notes",
}  # fmt: skip
TERM_FIELDS = {
    "name", "unit", "predicted", "low", "high", "measured", "difference", "inside", "side", "note",
}  # fmt: skip


def test_a_plan_is_verified(plan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved = tmp_path / "receipt.json"
    arguments = ["verify", "--plan", str(plan), "-m", STORIES, "--save", str(saved), "--quick"]
    code, found = verify(capsys, *arguments)
    assert code == 0
    assert found["verified"]
    assert found["wrong"] == []
    assert found["corrected"] is None
    assert found.keys() == FIELDS
    assert {frozenset(term) for term in found["terms"]} == {frozenset(TERM_FIELDS)}
    names = [term["name"] for term in found["terms"]]
    assert names == [
        "weights", "kv", "activation", "overhead", "total", "allocated_resident",
        "allocated_peak", "ttft", "tpot", "tpot_p95",
    ]  # fmt: skip
    promised = json.loads(plan.read_text())["recommended"]
    by_name = {term["name"]: term for term in found["terms"]}
    for name in ("weights", "kv"):
        assert by_name[name]["measured"] == promised["memory"][name] == by_name[name]["predicted"]
    assert by_name["activation"]["inside"] is None
    assert found["config"] == promised["config"]
    assert json.loads(saved.read_text()) == found
    Execution.model_validate(found["execution"])


def test_a_configuration_is_verified_and_becomes_rows(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verify(capsys, *TYPED)
    assert code == 0
    (task,) = found["tasks"]
    assert task["task"] == "arithmetic"
    assert task["reference"] == 0.0  # this model cannot calculate
    assert task["inside"] is None
    assert "scores 0.00" in task["note"]
    rows = read_records(calibrations.folder_of(SPEC) / ROWS)
    assert [(r.task, r.config) for r in rows] == [
        ("execution", "w16a16-k8v8+pc32"),
        ("arithmetic", "w16a16-k16v16+pc32"),
    ]
    assert found["rows_written"] == len(rows)
    assert rows[0].memory is not None
    assert rows[0].memory.kv == found["terms"][1]["measured"]
    assert rows[0].retention is None
    assert rows[0].details["budget"] == 2 * GB
    # a second time: the unquantized scores are there already
    code, found = verify(capsys, *TYPED)
    assert (code, found["rows_written"]) == (0, 1)
    assert found["tasks"][0]["reference_from"] == "calibration rows"


def test_random_weights_claim_no_accuracy(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untasked = [word for word in TYPED if word not in ("--items", "1", "--tasks", "arithmetic")]
    code, found = verify(capsys, *untasked, "--random-weights")
    assert code == 0
    assert found["tasks"] == []
    assert found["retention"]["measured"] is None
    assert any("accuracy is not" in note for note in found["notes"])
    (row,) = read_records(calibrations.folder_of(SPEC) / ROWS)
    assert row.details["random_weights"] == 1.0
    assert row.retention is None
    assert calibrations.find(SPEC) is None  # nothing was fitted


def test_a_budget_that_does_not_hold_it_is_said_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*TYPED[:5], "--budget", "1MB", *SHAPE]
    code, found = verify(capsys, *arguments)
    assert code == 1
    assert not found["verified"]
    assert found["term"] == "weights"
    assert found["wrong"][0].startswith("memory ran out while the weights were loaded")
    assert not found["corrected"]["fits"]
    assert run([*arguments, "--device", "cpu"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].startswith("not verified")
    assert lines[6] == "Wrong"


def test_a_sweep_verifies_points_of_the_frontier(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(plan.read_text())
    point = document["frontier"][0]
    document["frontier"] = [point, predicted("w16a16-k8v8"), predicted("w16a16-k4v4")]
    plan.write_text(json.dumps(document))
    arguments = ["verify", "--plan", str(plan), "-m", STORIES, "--sweep", "2", "--random-weights"]
    code, found = verify(capsys, *arguments)
    assert code == 0
    assert [one["config"] for one in found["receipts"]] == [point["config"], "w16a16-k4v4"]
    assert found["verdict"] == "2 of 2 verified"
    assert run([*arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 verified"


def predicted(config: str) -> dict[str, Any]:
    request = Request(SPEC, Workload(64, 8), KVPARETO, GB)
    return predict(request, Configuration.parse(config), None).model_dump()


def test_answers_that_do_not_fit_the_cap_leave_the_run_standing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(verification.Examiner, "score", full)
    code, found = verify(capsys, *TYPED)
    assert code == 0
    assert found["tasks"] == []
