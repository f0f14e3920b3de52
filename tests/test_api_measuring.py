"""Python calls that run a model or write a file: the same options, documents and refusals as their
commands, and nothing printed."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

import kvpareto
from kvpareto.calibration.call_words import CalibrateWords, RunWords, VerifyWords
from kvpareto.calibration.design.options import CalibrationOptions
from kvpareto.calibration.running.open_session import RunOptions
from kvpareto.calibration.verify.by_engine import EveryVerifyOption
from kvpareto.cli import calibrate, generation_options, plan_estimate, run_chat, verify
from kvpareto.cli import run as run_line
from kvpareto.planner.typed_request import EstimateWords, PlanWords
from tests.support import data_files

STORIES = data_files.STORIES
CONFIG = "w16a16-k8v8+pc64"
NOT_WORDS = {"here", "argument", "model", "config", "as_json", "save", "details", "max_context"}
"""Parameters of commands that are no word of their call: positional, or for the terminal."""


def options_of(command: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of a command's options; `context` is typer's own there."""
    found = {one.name: one.default for one in inspect.signature(command).parameters.values()}
    found["context"] = found.pop("prompt")
    return found


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(plan_estimate.plan, PlanWords, id="plan"),
        pytest.param(plan_estimate.estimate, EstimateWords, id="estimate"),
        pytest.param(calibrate.calibrate, CalibrateWords, id="calibrate"),
        pytest.param(verify.verify, VerifyWords, id="verify"),
    ],
)
def test_a_call_takes_what_its_command_takes(command: Callable[..., Any], words: Any) -> None:
    planning = {"trust_remote_code"} if words in (PlanWords, EstimateWords) else set()
    options = set(options_of(command)) - NOT_WORDS - planning
    assert set(words.__annotations__) - {"config"} == options


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        pytest.param(options_of(calibrate.calibrate), CalibrationOptions, id="calibrate"),
        pytest.param(options_of(verify.verify), EveryVerifyOption, id="verify"),
        pytest.param(
            {name: default for name, (_, default) in generation_options.SHARED.items()},
            RunOptions,
            id="run",
        ),
    ],
)
def test_defaults_of_calls_are_those_of_commands(command: dict[str, Any], kind: Any) -> None:
    defaults = {one.name: one.default for one in fields(kind)}
    assert MISSING not in defaults.values()
    assert {name: command[name] for name in defaults if name in command} == {
        name: default for name, default in defaults.items() if name in command
    }
    assert set(defaults) - set(command) <= {"batch", "command"}


def test_a_run_takes_what_run_and_chat_share() -> None:
    assert set(RunWords.__annotations__) == set(generation_options.SHARED) - {"model"}
    at_once = inspect.signature(kvpareto.run_batch).parameters["at_once"].default
    assert at_once == run_chat.AT_ONCE


def test_a_plan_for_vllm_is_verified_by_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.json"
    asked = {"gpu": "H100", "engine": "vllm", "users": 4, "context": "8k", "offline": True}
    plan.write_text(json.dumps(kvpareto.plan("Qwen/Qwen3-8B", **asked)))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(kvpareto.MissingDependency, match="vLLM is not installed"):
        kvpareto.verify(plan=plan, offline=True)
    with pytest.raises(kvpareto.BadInput, match="is a plan for vllm, and --engine"):
        kvpareto.verify(plan=plan, engine="transformers", offline=True)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ({"binary": "llama-server"}, "--binary is not for --engine kvpareto", "llama.cpp"),
        ({"plugin": True}, "--plugin is not for --engine kvpareto", "--engine vllm"),
        ({"engine": "ollama", "random_weights": True}, "--random-weights is not for", "leave"),
        ({"engine": "llamacpp", "items": 0}, "--items is not for --engine llama.cpp", "leave"),
        ({"engine": "transformers", "plugin": True}, "not for --engine transformers", "vllm"),
        ({"engine": "SGLang "}, "verify does not run SGLang", "llama.cpp and vllm"),
        ({"engine": "any"}, "only `plan` takes it", "name one"),
        ({"plan": "nowhere.json", "budget": None}, "nowhere.json", "kvpareto plan"),
    ],
)
def test_what_an_engine_does_not_take_is_refused(
    words: dict[str, Any], message: str, hint: str
) -> None:
    asked: dict[str, Any] = {"budget": "2GB", "offline": True} | words
    with pytest.raises(kvpareto.BadInput, match=message) as caught:
        kvpareto.verify("recall", **asked)
    assert hint in caught.value.hint


@pytest.mark.cpu
def test_a_prompt_is_answered_as_run_answers(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"config": CONFIG, "output": 12, "device": "cpu", "offline": True}
    found = kvpareto.run(STORIES, "Once upon a time", **words)
    assert capsys.readouterr() == ("", "")
    line = ["run", "-m", str(STORIES), "--config", CONFIG, "--output", "12", "--device", "cpu"]
    assert run_line([*line, "Once upon a time", "--offline", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    timed = ("ttft_s", "tokens_per_s")
    assert {**found, **dict.fromkeys(timed)} == {**printed, **dict.fromkeys(timed)}


@pytest.mark.cpu
def test_answers_are_in_the_order_of_the_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ["Once upon a time", {"prompt": "The dog", "max_tokens": 1, "id": "b"}, "A cat"]
    words = {"config": CONFIG, "context": 64, "output": 12, "device": "cpu", "offline": True}
    found = kvpareto.run_batch(STORIES, prompts, at_once=2, **words)
    assert capsys.readouterr() == ("", "")
    answers = found["answers"]
    assert [one["id"] for one in answers] == [0, "b", 2]
    assert answers[1]["new_tokens"] == 1
    assert (found["at_once"], found["joined"]) == (2, 1)


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("one text", "not a list of prompts"),
        ({"prompt": "a"}, "not a list of prompts"),
        (3, "not a list of prompts"),
        ([], "there are no prompts"),
        (["a", 3], "prompt 2 is no text and no document"),
        ([{"promt": "a"}], "prompt 1: promt: "),
        ([{}], "prompt 1 needs one of prompt, messages, tokens"),
    ],
)
def test_prompts_that_are_none_are_named(prompts: Any, says: str) -> None:
    with pytest.raises(kvpareto.BadInput, match=says) as caught:
        kvpareto.run_batch(STORIES, prompts, offline=True)
    assert caught.value.hint


def test_profiles_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for line, found in (
        (["list"], kvpareto.profiles_list()),
        (["show", "H200"], kvpareto.profiles_show("H200")),
    ):
        assert run_line(["profiles", *line, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))


def test_a_report_is_written_of_what_calls_return(tmp_path: Path) -> None:
    plan, page = tmp_path / "plan.json", tmp_path / "page.html"
    plan.write_text(json.dumps(kvpareto.plan("Qwen/Qwen3-8B", budget="12GB", offline=True)))
    found = kvpareto.write_report([plan], page)
    assert (found["report"], found["bytes"]) == (str(page), page.stat().st_size)


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (kvpareto.profiles_show, (3,)),
        (kvpareto.profiles_check, (3,)),
        (kvpareto.profiles_export, ("recall", 3)),
        (kvpareto.profiles_import, (None,)),
        (kvpareto.write_report, ("plan.json",)),
        (kvpareto.write_report, ([3],)),
        (kvpareto.run, ("recall", 3)),
    ],
)
def test_other_types_are_refused(call: Callable[..., Any], asked: tuple[Any, ...]) -> None:
    with pytest.raises(kvpareto.BadInput, match="not a ") as caught:
        call(*asked)
    assert caught.value.hint
