"""`kvpareto verify` over budgets and contexts, and without a configuration: plans come first."""

import json
from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.units import split_tokens
from tests.support.verify_runs import STORIES, verify
from tests.support.verify_runs import home as home

ASKED = ["verify", "-m", STORIES, "--output", "4", "--random-weights", "--offline"]


def plan(capsys: pytest.CaptureFixture[str], budget: str, context: str) -> dict[str, Any]:
    asked = ["plan", "-m", STORIES, "--budget", budget, "--context", context, "--output", "4"]
    assert run([*asked, "--dtype", "float32", "--json"]) == 0  # what a CPU loads
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_without_a_configuration_what_is_recommended_is_verified(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recommended = plan(capsys, "2GB", "96")["recommended"]
    code, found = verify(capsys, *ASKED, "--budget", "2GB", "--context", "96")
    assert code == 0
    assert found["config"] == recommended["config"]
    (total,) = [term for term in found["terms"] if term["name"] == "total"]
    memory = recommended["memory"]
    assert total["predicted"] == memory["total"] - memory["overhead"]


def test_every_budget_with_every_context(capsys: pytest.CaptureFixture[str]) -> None:
    table = ["--budget", "0.1MB,2GB,3GB", "--context", "96,0.25k"]
    code, found = verify(capsys, *ASKED, *table)
    assert code == 0
    shapes = [(one["context"], one["budget"]) for one in found["receipts"]]
    assert shapes == [(c, b) for c in (96, 256) for b in (2 * 10**9, 3 * 10**9)]
    assert [(none["context"], none["budget"]) for none in found["unplanned"]] == [
        (96, 10**5),
        (256, 10**5),
    ]
    assert found["unplanned"][0]["reason"].startswith("nothing fits")
    assert found["verdict"] == "4 of 4 verified; nothing fits 2 more"
    assert run([*ASKED, *table, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == found["verdict"]
    assert sum(line.startswith("nothing fits") for line in lines) == 2


def test_one_configuration_over_contexts(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "w16a16-k8v8+pc32", "--budget", "2GB"]
    code, found = verify(capsys, *ASKED, *config, "--context", "64,96")
    assert code == 0
    assert [(one["config"], one["context"]) for one in found["receipts"]] == [
        ("w16a16-k8v8+pc32", 64),
        ("w16a16-k8v8+pc32", 96),
    ]
    assert found["unplanned"] == []


def test_a_budget_that_nothing_fits_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ASKED, "--budget", "0.1MB", "--device", "cpu"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("error: nothing fits")
    assert lines[-1].startswith("hint: this would fit: a budget of")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("8k,32k", ["8k", "32k"]),
        ("10, 240", ["10", " 240"]),
        ("10240,131072", ["10240", "131072"]),
        ("512,1024", ["512", "1024"]),
        ("32k", ["32k"]),
    ],
)
def test_a_comma_parts_numbers(text: str, parts: list[str]) -> None:
    assert split_tokens(text) == parts


@pytest.mark.parametrize("command", [ASKED, ["calibrate", "-m", STORIES]], ids=["verify", "calib"])
def test_what_may_be_thousands_is_asked_back(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    budget = ["--budget", "2GB"] if command is ASKED else []
    assert run([*command, *budget, "--context", "256,512", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: '256,512' can be one length or several",
        "hint: write 256512, or '256, 512'",
    ]
