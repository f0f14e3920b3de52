"""The driver of benchmarks/measure: rows, failures, and a file that is gone on with."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.measure import __main__ as driver
from benchmarks.measure import design_paper, design_runs, design_verify
from benchmarks.measure.planned_run import PlannedRun
from benchmarks.measure.row_file import by_key, read
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.workload import Workload
from tests.support import data_files

STORIES = str(data_files.STORIES)
ROWS = Path(__file__).parents[1] / "profiles" / "calibrations"


def planned(text: str | None) -> PlannedRun:
    return PlannedRun(
        key=("stories", text),
        model=STORIES,
        config=None if text is None else Configuration.parse(text),
        workload=Workload(64, 4),
        engine=KVPARETO,
        seconds=0.0,
        fields={"reason": "too large"} if text is None else {"predicted": {"total": 1}},
    )


def design(runs: Sequence[PlannedRun]) -> Any:
    return SimpleNamespace(
        runs=lambda options: list(runs),
        key_of=by_key,
        line=lambda row: row["outcome"],
        summary=lambda rows, options: [f"{len(rows)} rows"],
    )


def run(monkeypatch: pytest.MonkeyPatch, out: Path, runs: Sequence[PlannedRun]) -> None:
    monkeypatch.setitem(driver.DESIGNS, "runs", design(runs))
    monkeypatch.setattr("sys.argv", ["measure", "runs", str(out), "--device", "cpu"])
    driver.main()


def test_rows_are_written_once_and_a_file_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    first, second, none = planned("w16a16-k8v8"), planned("w16a16-k4v4"), planned(None)
    run(monkeypatch, out, [first, none])
    run(monkeypatch, out, [first, second, none])
    rows = read(out)
    assert [(row["key"][1], row["outcome"]) for row in rows] == [
        (None, "nothing fits"),
        ("w16a16-k8v8", "ok"),
        ("w16a16-k4v4", "ok"),
    ]
    assert rows[1]["execution"]["kv"] > rows[2]["execution"]["kv"]
    assert capsys.readouterr().out.splitlines()[-1] == "3 rows"


def test_a_run_that_takes_the_device_with_it_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvpareto.calibration.execution import run as execution

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(execution, "execute", broken)
    monkeypatch.setenv(driver.RESTARTS, str(driver.MOST_RESTARTS))
    with pytest.raises(SystemExit, match="again and again"):
        run(monkeypatch, tmp_path / "rows.jsonl", [planned("w16a16-k8v8")])
    (row,) = read(tmp_path / "rows.jsonl")
    assert row["outcome"] == "crashed"
    assert "illegal memory access" in row["reason"]


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (design_runs, "runs", "116 of 116 runs went well"),
        (design_verify, "verify", "runs within their budget: "),
        (design_paper, "paper", "| model | context | |"),
    ],
)
def test_a_summary_of_the_rows_that_ship(module: Any, name: str, said: str) -> None:
    rows = driver.runs_in(read(ROWS / f"{name}_h200.jsonl"))
    text = "\n".join(module.summary(rows, argparse.Namespace(again=False, gpu="H200")))
    assert said in text
    assert len({json.dumps(module.key_of(row)) for row in rows}) == len(rows)


def test_a_design_knows_the_runs_that_its_rows_have() -> None:
    """The rows that ship are of runs that the design makes: they are not measured twice."""
    options = argparse.Namespace(gpu="H200", only="Llama-3.2-3B")
    keys = {run.key for run in design_runs.runs(options)}
    rows = driver.runs_in(read(ROWS / "runs_h200.jsonl"))
    done = {design_runs.key_of(row) for row in rows if options.only in row["model"]}
    assert done
    assert done <= keys
