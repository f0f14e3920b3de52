"""A small model to verify on the CPU, a plan of it, and the command as a test calls it."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.load_model import load_model
from tests.support import data_files

STORIES = str(data_files.STORIES)
SPEC = load_model(STORIES)
SHAPE = ["--context", "256", "--output", "4", "--items", "1", "--tasks", "arithmetic", "--offline"]
TYPED = ["verify", "-m", STORIES, "--config", "w16a16-k8v8+pc32", "--budget", "2GB", *SHAPE]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "home"
    monkeypatch.setenv("KVPARETO_HOME", str(found))
    return found


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "plan.json"
    asked = ["plan", "-m", STORIES, "--budget", "2GB", "--context", "64", "--output", "8"]
    assert run([*asked, "--save", str(path), "--json"]) == 0
    capsys.readouterr()
    return path


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run([*arguments, "--device", "cpu", "--json"])
    return code, json.loads(capsys.readouterr().out)
