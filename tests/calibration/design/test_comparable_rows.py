"""Scores are paired with those of the same questions only, whatever is resumed or imported."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.design.options import (
    ASKED,
    CalibrationOptions,
    CalibrationSettings,
    asks_own_prose,
    check_comparable,
    settle,
)
from kvpareto.calibration.records.record_file import DIVERGENCE, LAYERS, ROWS, read_records
from kvpareto.calibration.verify.verify import VerifyOptions, verify
from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.planner.load_model import load_model
from tests.support import data_files
from tests.support.record_writer import row

STORIES = str(data_files.STORIES)
SPEC = load_model(STORIES)
BEGUN = CalibrationSettings(2, "arithmetic", (256,), 4, 0.005, 0, None, None, ("", ""))
NOTHING = replace(
    CalibrationOptions(**dict.fromkeys(CalibrationOptions.__dataclass_fields__)),  # type: ignore[arg-type]
    resume=True,
    offline=True,
)


def test_terms_of_every_seed_are_kept(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Zebras ate the marmalade.")
    second = settle(replace(NOTHING, seed=1, items=8, haystack=text), SPEC, "cpu", BEGUN)
    assert second.by_seed == {0: BEGUN.terms, 1: second.terms}
    kept = CalibrationSettings.of(json.loads(second.to_text()))
    assert kept == second
    again = settle(replace(NOTHING, seed=0), SPEC, "cpu", kept)  # back to the first
    assert again.terms == BEGUN.terms
    for other in ({"items": 8}, {"haystack": text}, {"text": text}):
        with pytest.raises(BadInput, match=f"another --{next(iter(other))}"):
            settle(replace(NOTHING, seed=0, **other), SPEC, "cpu", kept)  # type: ignore[arg-type]
    text.write_text("The moon was square.")
    with pytest.raises(BadInput, match="another --haystack"):
        settle(NOTHING, SPEC, "cpu", kept)


@pytest.mark.parametrize(
    "change",
    [
        {"runs": 0},
        {"runs": "2"},
        {"items": True},
        {"seed": -1},
        {"tolerance": -0.1},
        {"tolerance": float("nan")},
        {"contexts": []},
        {"contexts": [0]},
        {"tasks": 3},
        {"hashes": ["x"]},
        {"text": 7},
        {"others": {"x": [4, None, None, "", ""]}},
        {"others": {"1": [0, None, None, "", ""]}},
        {"others": {"1": [4, None, None, ""]}},
        {"others": []},
        {"more": 1},
    ],
    ids=str,
)
def test_damaged_terms_are_not_taken(change: dict[str, Any]) -> None:
    assert CalibrationSettings.of(json.loads(BEGUN.to_text())) == BEGUN
    assert CalibrationSettings.of(json.loads(BEGUN.to_text()) | change) is None


def test_rows_whose_terms_are_lost_are_not_paired() -> None:
    rows = [row(0, task=DIVERGENCE), row(0, task="needle", items=(1.0,) * 4)]
    with pytest.raises(BadInput, match="is not known"):
        check_comparable(BEGUN, None, rows)
    with pytest.raises(BadInput, match="is not known"):
        check_comparable(BEGUN, replace(BEGUN, seed=1), rows)
    check_comparable(BEGUN, BEGUN, rows)
    check_comparable(replace(BEGUN, seed=1), None, rows)
    check_comparable(BEGUN, None, [row(0, task=LAYERS, items=(1.0, 1.0))])


def test_rows_of_a_verification_are_of_our_own_prose() -> None:
    rows = [row(0, task="needle", items=(1.0,) * 4, context=256)]
    check_comparable(BEGUN, None, rows)
    with pytest.raises(BadInput, match="--items"):
        check_comparable(replace(BEGUN, items=8), None, rows)
    check_comparable(replace(BEGUN, items=8, contexts=(512,)), None, rows)  # never paired
    with pytest.raises(BadInput, match="--haystack"):
        check_comparable(replace(BEGUN, hashes=("", "0")), None, rows)
    early = [row(0, task="needle", items=(0.0,) * 2, context=256, reason="ended early")]
    check_comparable(BEGUN, BEGUN, early)


def test_a_verification_takes_only_scores_of_our_own_prose(tmp_path: Path) -> None:
    rows = [row(0, task=DIVERGENCE)]
    assert asks_own_prose(tmp_path, [], 0, 8)
    assert not asks_own_prose(tmp_path, rows, 0, None)  # of what, nobody knows
    (tmp_path / ASKED).write_text(BEGUN.to_text())
    assert asks_own_prose(tmp_path, rows, 0, None)
    assert asks_own_prose(tmp_path, rows, 0, 4)
    assert not asks_own_prose(tmp_path, rows, 0, 8)
    (tmp_path / ASKED).write_text(replace(BEGUN, hashes=("", "0")).to_text())
    assert not asks_own_prose(tmp_path, rows, 0, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**63}, "--seed"),
        ({"tolerance": -1.0}, "--tolerance"),
        ({"tolerance": float("nan")}, "--tolerance"),
        ({"minutes": float("nan")}, "--minutes"),
        ({"runs": 0}, "--runs"),
        ({"items": 0}, "--items"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_said_before(change: dict[str, Any], says: str) -> None:
    NOTHING.check()
    with pytest.raises(BadInput, match=says):
        replace(NOTHING, **change).check()


def test_a_prompt_longer_than_any_is_refused() -> None:
    with pytest.raises(BadInput, match="longer than any prompt"):
        settle(replace(NOTHING, context="2147483648"), SPEC, "cpu", None)


def test_a_verification_refuses_a_seed_that_is_none() -> None:
    options = dict.fromkeys(VerifyOptions.__dataclass_fields__)
    asked = options | {"model": STORIES, "budget": "1GB", "seed": -1, "engine": "kvpareto"}
    with pytest.raises(BadInput, match="--seed -1"):
        verify(VerifyOptions(**asked))  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def at(name: str) -> Path:
        monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / name))
        return tmp_path / name

    return at


COMMAND = ["calibrate", "-m", STORIES, "--device", "cpu"]


def test_resume_after_an_import_goes_on_as_begun_or_refuses(
    home: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home("here")
    asked = ["--context", "256", "--tasks", "arithmetic", "--items", "2", "--runs", "1"]
    assert run([*COMMAND, *asked]) == 1  # the unquantized model alone is nothing to fit
    file, own = tmp_path / "out.json", tmp_path / "own.txt"
    assert run(["profiles", "export", "stories260k-hf", "-o", str(file)]) == 0
    there = home("there")
    assert run(["profiles", "import", str(file)]) == 0
    (rows,) = there.glob(f"calibrations/*/{ROWS}")
    own.write_text("some other text " * 2000)
    for other in (["--haystack", str(own)], ["--text", str(own)], ["--items", "3"]):
        assert run([*COMMAND, "--resume", *other]) == 2
        assert f"another {other[0]}" in capsys.readouterr().err
    assert run([*COMMAND, "--resume", "--runs", "2"]) == 0  # the other terms travelled
    assert {len(r.items) for r in read_records(rows) if r.task == "arithmetic"} == {2}
    (rows.parent / ASKED).unlink()
    before = rows.read_bytes()
    assert run([*COMMAND, "--resume", "--runs", "3"]) == 2
    assert "is not known" in capsys.readouterr().err
    assert rows.read_bytes() == before


def test_a_calibration_of_crashes_exits_1(
    home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = home("here")

    def failing(*arguments: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr("kvpareto.calibration.measure.bench.RuntimeTrial.divergence", failing)
    asked = ["--context", "256", "--tasks", "arithmetic", "--items", "2", "--runs", "2"]
    assert run([*COMMAND, *asked]) == 1
    assert "all 2 runs failed, the last with RuntimeError: no kernel" in capsys.readouterr().err
    (rows,) = there.glob(f"calibrations/*/{ROWS}")
    assert [r.outcome for r in read_records(rows) if r.task != LAYERS] == ["crashed"] * 2
