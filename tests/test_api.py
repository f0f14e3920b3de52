"""The Python face gives the documents that the command line prints, and prints nothing."""

import json
import math
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import kvpareto
from kvpareto.calibration.design.options import CalibrationOptions
from kvpareto.calibration.verify.by_engine import EveryVerifyOption
from kvpareto.cli import run
from kvpareto.planner.load_model import load_config
from kvpareto.planner.typed_request import EstimateWords, PlanWords

MODEL = "Qwen/Qwen3-8B"


def printed(capsys: pytest.CaptureFixture[str], *line: str) -> dict[str, Any]:
    assert run([*line, "--json", "--offline"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_is_what_plan_json_prints(capsys: pytest.CaptureFixture[str]) -> None:
    answer = kvpareto.plan(MODEL, gpu="4090", context=8192, max_loss=0.05, offline=True)
    assert capsys.readouterr() == ("", "")
    line = ["plan", "-m", MODEL, "--gpu", "4090", "--context", "8k", "--max-loss", "5%"]
    assert json.loads(json.dumps(answer)) == printed(capsys, *line)


def test_an_estimate_is_what_estimate_json_prints(capsys: pytest.CaptureFixture[str]) -> None:
    config = "w4a16-k4v4-g64+pc256"
    answer = kvpareto.estimate(MODEL, config, gpu="4090", output=0, offline=True)
    line = ["estimate", "-m", MODEL, "--config", config, "--gpu", "4090", "--output", "0"]
    assert json.loads(json.dumps(answer)) == printed(capsys, *line)


def test_the_longest_contexts_are_those_of_max_context(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = kvpareto.max_context(MODEL, budget=8 * 10**9, offline=True)
    line = ["plan", "-m", MODEL, "--budget", "8GB", "--max-context"]
    assert json.loads(json.dumps(answer)) == printed(capsys, *line)


def test_sizes_are_texts_or_bytes() -> None:
    as_text = kvpareto.plan(MODEL, budget="12GB", offline=True)
    assert kvpareto.plan(MODEL, budget=12 * 10**9, offline=True) == as_text


def test_failures_are_exceptions_with_a_hint() -> None:
    with pytest.raises(kvpareto.BadInput, match="no budget") as bad:
        kvpareto.plan(MODEL, offline=True)
    assert bad.value.hint
    with pytest.raises(kvpareto.NothingFits):
        kvpareto.plan(MODEL, budget="1GB", offline=True)
    with pytest.raises(kvpareto.BadInput, match="not a loss"):
        kvpareto.plan(MODEL, budget="12GB", max_loss=1.5, offline=True)
    assert issubclass(kvpareto.BadInput, kvpareto.KVParetoError)
    with pytest.raises(AttributeError, match="no attribute 'plans'"):
        kvpareto.plans  # noqa: B018


def test_every_public_name_is_there() -> None:
    assert set(kvpareto.__all__) <= set(dir(kvpareto))
    assert all(getattr(kvpareto, name) for name in kvpareto.__all__)


def test_importing_costs_nothing() -> None:
    code = "import sys, kvpareto; print(sorted({'numpy', 'pydantic', 'typer'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_verify_gives_a_receipt_without_printing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(kvpareto.BadInput):
        kvpareto.verify(MODEL, config="w4", budget="8GB", offline=True)
    assert capsys.readouterr().out == ""


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(kvpareto.BadInput, match="contxt") as plan:
        kvpareto.plan(MODEL, budget="12GB", contxt="64k", offline=True)
    assert plan.value.hint == "did you mean context?"
    with pytest.raises(kvpareto.BadInput, match="zork"):
        kvpareto.estimate(MODEL, "w16a16-k16v16", zork=1, offline=True)


def test_numbers_are_bytes_and_cards_and_paths_are_models(tmp_path: Path) -> None:
    as_text = kvpareto.plan(MODEL, budget="16GB", offline=True)
    assert kvpareto.plan(MODEL, budget=16e9, context=32768.0, offline=True) == as_text
    named = kvpareto.plan(MODEL, gpu="4090", offline=True)
    assert kvpareto.plan(MODEL, gpu=4090, offline=True) == named
    (tmp_path / "config.json").write_text(json.dumps(load_config(MODEL, offline=True).config))
    there = kvpareto.estimate(tmp_path, "w16a16-k16v16", context=1024, offline=True)
    by_name = kvpareto.estimate(MODEL, "w16a16-k16v16", context=1024, offline=True)
    assert there["memory"] == by_name["memory"]


WRONG = (None, True, 0, -5, 7.5, math.nan, math.inf, "x", "", Path("x"), [1], {}, object())


@pytest.mark.parametrize("word", ["model", "config", *EstimateWords.__annotations__])
def test_no_value_of_an_estimate_is_a_fault_inside(word: str) -> None:
    for value in WRONG:
        asked: dict[str, Any] = {"model": MODEL, "config": "w16a16-k16v16", "offline": True}
        refused_or_done(kvpareto.estimate, **asked | {word: value})


@pytest.mark.parametrize("word", ["model", *PlanWords.__annotations__])
def test_no_value_of_a_plan_is_a_fault_inside(word: str) -> None:
    for value in WRONG:
        gpu = word in ("ttft", "tpot", "reserve", "gpus")
        asked: dict[str, Any] = {"model": MODEL, "context": "1k", "offline": True}
        asked |= {"gpu": "4090"} if gpu else {"budget": "1GB"}  # too little: no search
        refused_or_done(kvpareto.plan, **asked | {word: value})


@pytest.mark.parametrize("call", [kvpareto.calibrate, kvpareto.verify])
def test_no_type_of_a_measurement_is_a_fault_inside(call: Any) -> None:
    kind = CalibrationOptions if call is kvpareto.calibrate else EveryVerifyOption
    for word in (one.name for one in fields(kind)):
        with pytest.raises(kvpareto.BadInput, match=f"not a value for {word}") as caught:
            call(**{"model": "recall", "offline": True, word: [1]})
        assert caught.value.hint
    with pytest.raises(kvpareto.BadInput, match="unknown word: sed"):
        call("recall", sed=1)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("json", "leave it out"),
        ("save", "json.dump"),
        ("budgets", "^did you mean budget"),
        ("zzz", "^words are budget, "),
    ],
)
def test_a_word_that_a_call_has_not_says_what_to_do(word: str, says: str) -> None:
    with pytest.raises(kvpareto.BadInput, match=f"unknown word: {word}") as caught:
        kvpareto.plan("recall", budget="8GB", offline=True, **{word: True})
    assert re.search(says, caught.value.hint)


def refused_or_done(call: Any, **asked: Any) -> None:
    try:
        said = call(**asked)["schema"] == 1
    except kvpareto.KVParetoError as error:
        said = bool(error.hint)
    assert said, asked
