"""A saved plan asks its question again, whole."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.search.recommend import recommend
from kvpareto.planner.search.request import Request
from kvpareto.planner.typed_request import typed_request
from kvpareto.report.document import plan_document
from kvpareto.report.output import write_document
from kvpareto.report.saved_plan import read_saved_plan

QUESTIONS: list[dict[str, Any]] = [
    {"budget": "12GB"},
    {"gpu": "4090", "reserve": "1GB", "objective": "memory", "max_loss": "5%"},
    {"gpu": "4090", "budget": "20GB", "task": "retrieval", "accept_risk": True, "batch": 2},
    {"budget": "24GB", "full_logits": True, "output": 64, "dtype": "float16"},
    {"gpu": "4060", "ram": "32GB", "engine": "llama.cpp"},
    {"ram": "32GB", "engine": "llama.cpp", "context": "8k"},
    {"gpu": "4060", "engine": "ollama", "context": "8k"},
    {"budget": "24GB", "engine": "transformers-eager", "context": "4k"},
]


@pytest.mark.parametrize("words", QUESTIONS, ids=lambda words: " ".join(map(str, words.values())))
def test_the_question_is_the_same(words: dict[str, Any], tmp_path: Path) -> None:
    asked = typed_request("Qwen/Qwen3-8B", offline=True, **words)
    write_document(tmp_path / "plan.json", plan_document(recommend(asked)))
    again = read_saved_plan(tmp_path / "plan.json").request
    assert again is not None
    for field in fields(Request):
        mine, theirs = getattr(asked, field.name), getattr(again, field.name)
        if field.name == "max_loss":
            mine, theirs = asked.accepted_loss, again.accepted_loss
        elif field.name == "spec":
            mine, theirs = (
                (mine.name, mine.dtype, mine.tensors),
                (theirs.name, theirs.dtype, theirs.tensors),
            )
        elif field.name == "engine":
            mine, theirs = (mine.name, mine.front), (theirs.name, theirs.front)
        assert mine == theirs, field.name


@pytest.mark.parametrize("output", [None, 64])
def test_a_servers_check_asks_for_the_output_that_was_planned(output: int | None) -> None:
    asked = typed_request("Qwen/Qwen3-8B", gpu="H100", engine="vllm", output=output, offline=True)
    commands = {one["label"]: one["command"] for one in plan_document(recommend(asked))["commands"]}
    assert ("--output 64" in commands["Check it"]) == (output is not None)


@pytest.mark.parametrize(
    ("text", "said"),
    [("w4a16-k4v4+protect{99}:k8v8", "layer 99"), ("w4", "weights alone"), ("", "not a config")],
)
@pytest.mark.parametrize("command", [["verify", "--plan"], ["run", "hi", "--plan"]])
def test_an_edited_configuration_is_the_plans_fault(
    command: list[str], text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "plan.json"
    asked = typed_request("Qwen/Qwen3-8B", offline=True, budget="12GB")
    document = plan_document(recommend(asked))
    document["recommended"]["config"] = text
    write_document(path, document)
    assert run([*command, str(path), "--offline", "--device", "cpu"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: plan.json was edited: ")
    assert said in error
    assert "kvpareto plan" in hint


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("recommended", "config"), "w4a16-k99v4", "was edited: k99 is not a KV format"),
        (("frontier", 0, "config"), "zork", "was edited: "),
        (("recommended", "memory", "total"), -5, "is not a plan: recommended.memory.total: "),
        (("recommended", "accuracy", "low"), 7.0, "is not a plan: recommended.accuracy.low: "),
        (("recommended", "ttft_s"), -1.0, "is not a plan: recommended.ttft_s: "),
        (("budget",), 10**30, "is not a plan: budget: "),
        (("max_loss",), -9.0, "is not a plan: max_loss: "),
    ],
)
def test_a_report_names_the_plan_that_was_edited(
    where: tuple[str | int, ...],
    value: object,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "plan.json"
    asked = typed_request("Qwen/Qwen3-8B", offline=True, gpu="4090")
    document = json.loads(json.dumps(plan_document(recommend(asked))))
    *parts, last = where
    place = document
    for part in parts:
        place = place[part]
    place[last] = value
    write_document(path, document)
    assert run(["report", str(path), "-o", str(tmp_path / "r.html")]) == 2
    assert capsys.readouterr().err.startswith(f"error: plan.json {said}")
