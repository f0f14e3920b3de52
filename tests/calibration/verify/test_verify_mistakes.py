"""What `kvpareto verify` says to damaged plans and other mistakes: one line, a hint, exit code 2.

A missing runtime or GPU is 3, Ctrl-C is 130.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kvpareto.calibration.verify.cases import from_plan
from kvpareto.cli import run
from kvpareto.planner.accuracy import calibrations
from kvpareto.runtime.forward import Forward
from tests.support.verify_runs import SPEC, STORIES, TYPED
from tests.support.verify_runs import home as home
from tests.support.verify_runs import plan as plan

LARGE = "meta-llama/Llama-3.1-8B-Instruct"


def damage(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (damage("schema", value=2), "is not a plan: schema"),
        (damage("recommended", value=None), "is not a plan: recommended"),
        (
            damage("recommended", "memory", "kv", value="much"),
            "is not a plan: recommended.memory.kv",
        ),
        (damage("recommended", "config", value="w7a16-k3v9"), "w7 is not"),
        (damage("recommended", "accuracy", "low", value=float("nan")), "is not a plan"),
        (damage("budget", value=-1), "is not a plan: budget"),
        (damage("engine", value="llama"), "no engine is called 'llama'"),
        (damage("parameters", value=7), "it was edited"),
        (damage("fingerprint", value="0" * 16), "the plan was made for"),
        (damage("recommended", "memory", "weights", value=7), "it was edited"),
        (damage("batch", value=0), "batch: Input should be greater than or equal to 1"),
        (damage("context", value=-1), "context: Input should be greater than or equal to 1"),
        (damage("objective", value="beauty"), "unknown objective"),
    ],
    ids=lambda value: value[-24:] if isinstance(value, str) else "",
)
def test_a_damaged_plan_is_one_line(
    change: Callable[[dict[str, Any]], None],
    says: str,
    plan: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(plan.read_text())
    change(document)
    plan.write_text(json.dumps(document))
    fails(capsys, ["--plan", str(plan), "-m", STORIES], 2, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ('{"schema": 1, "mod', "is not JSON"),
        ("[]", "not an object"),
        ('{"schema": 1, "max_context": []}', "answer of --max-context"),
        ("{}", "is not a plan: schema"),
    ],
    ids=["empty", "torn", "list", "longest", "nothing"],
)
def test_what_is_no_plan_is_one_line(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    fails(capsys, ["--plan", str(path)], 2, says)


def test_a_plan_of_a_model_that_is_elsewhere_asks_for_it(
    plan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = json.loads(plan.read_text()) | {"model_path": str(tmp_path / "gone")}
    plan.write_text(json.dumps(moved))
    fails(capsys, ["--plan", str(plan), "--offline"], 2, "which is not there any more")
    assert from_plan(plan, STORIES, True).config.quantizes_kv is False


@pytest.mark.parametrize("engine", ["transformers", "llama.cpp", "vllm", "sglang"])
def test_a_plan_is_verified_with_its_own_engine(
    engine: str, plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = f"is a plan for kvpareto, and --engine names {engine}"
    fails(capsys, ["--plan", str(plan), "-m", STORIES, "--engine", engine], 2, says)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "nothing to verify"),
        (["-m", STORIES, "--engine", "sglang", "--budget", "4GB"], 2, "does not run SGLang"),
        (["-m", STORIES, "--engine", "any", "--budget", "4GB"], 2, "--engine any compares engines"),
        (["-m", STORIES], 2, "no --budget"),
        (["--plan", "plan.json", "--budget", "3GB"], 2, "--plan says what to run"),
        (["--plan", "no-such-plan.json"], 2, "no-such-plan.json"),
        (["-m", STORIES, "--config", "w9", "--budget", "2GB"], 2, "w9"),
        (["-m", STORIES, "--config", "w16a16-k4v4", "--budget", "lots"], 2, "not a memory size"),
        ([*TYPED[1:], "--items", "0"], 2, "--items 0 verifies nothing"),
        ([*TYPED[1:], "--sweep", "2"], 2, "--sweep needs the frontier"),
        ([*TYPED[1:], "--device", "tpu"], 2, "no device is called 'tpu'"),
        ([*TYPED[1:7], "--tasks", "juggling"], 2, "no task is called 'juggling'"),
        ([*TYPED[1:], "--engine", "transformers"], 2, "not as w16a16-k8v8"),
        ([*TYPED[1:], "--device", "cuda"], 3, "no CUDA GPU"),
        (
            ["-m", LARGE, "--config", "w16a16-k4v4", "--budget", "9GB", "--device", "cpu"],
            3,
            "too many to verify on a CPU",
        ),
        (
            ["-m", "deepseek-ai/DeepSeek-V3.2", "--config", "w16a16-k4v4", "--budget", "9GB"],
            2,
            "cannot run deepseek-ai/DeepSeek-V3.2",
        ),
    ],
    ids=lambda value: " ".join(value)[-32:] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_a_hint(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    fails(capsys, arguments, code, says)


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str) -> None:
    given = arguments if "--device" in arguments else [*arguments, "--device", "cpu"]
    assert run(["verify", *given]) == code
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert "Traceback" not in err


def test_without_the_runtime_it_names_the_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert run(TYPED) == 3
    assert "[runtime]" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Forward, "__call__", interrupt)
    assert run([*TYPED, "--device", "cpu"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: interrupted")


def test_a_profile_that_is_being_written_is_not_written_by_two(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from kvpareto.calibration.records.record_file import RecordFile

    with RecordFile(calibrations.folder_of(SPEC)):
        fails(capsys, TYPED[1:], 2, "is being calibrated by process")
