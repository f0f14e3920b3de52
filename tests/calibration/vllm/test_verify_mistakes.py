"""`verify --engine vllm`: what is missing and what cannot be asked, in a line and its exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.vllm import verify as verifier
from kvpareto.calibration.vllm.start import (
    run_engine,
)
from kvpareto.cli import run
from kvpareto.planner.errors import MissingDependency
from kvpareto.planner.install import install_command
from tests.calibration.vllm.stand_in import QWEN, Engine


def test_without_vllm_exit_3_and_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr("kvpareto.calibration.vllm.start.is_installed", lambda: False)
    assert run([*QWEN, "--random-weights"]) == 3
    said = capsys.readouterr().err
    assert "vllm is missing" in said
    assert install_command("vllm") in said


def test_without_torch_either_the_extra_that_brings_both(tmp_path: Path) -> None:
    """A light install has neither: its hint names vLLM's extra, not that of our own runtime."""
    code = "import sys; sys.modules |= {'torch': None, 'vllm': None}\n"
    code += "from kvpareto.cli import run\n"
    code += "sys.exit(run(['verify', '--engine', 'vllm', '-m', 'Qwen/Qwen3-8B', '--offline']))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert found.returncode == 3
    assert "[vllm]" in found.stderr
    assert "runtime" not in found.stderr


def test_without_a_gpu_exit_3(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> None:
        raise MissingDependency("no GPU was found", "name one")

    monkeypatch.setattr(verifier, "detect_gpu", none)
    assert run([*QWEN, "--random-weights"]) == 3
    assert "vLLM needs a GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "w16a16-k4v4-g64"], "no cache of w16a16-k4v4-g64"),
        (["--config", "w4a16-k16v16"], "no weights in w4a16"),
        (["--config", "w16a16-kfp8v16"], "no cache of w16a16-kfp8v16"),
        (["--sweep", "3"], "--sweep is not for --engine vllm"),
        ([], "weights of Qwen/Qwen3-8B are not on this machine"),
    ],
)
def test_what_cannot_be_asked_is_named(
    engine: Engine, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run([*QWEN, "--offline", *words]) == 2
    assert said in capsys.readouterr().err


PLUGIN = ["verify", "--engine", "vllm", "--plugin", "-m", "Qwen/Qwen3-8B", "--context", "4k",
          "--batch", "4", "--random-weights", "--json"]  # fmt: skip


def test_the_plugin_is_started_by_its_backend(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verifier, "why_not", lambda: None)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **asked: [asked["name"]])
    started: list[dict[str, str]] = []

    def run_engine_(source: str, flags: dict[str, str], **rest: Any) -> Any:
        started.append(flags)
        return run_engine(source, flags, **rest)

    monkeypatch.setattr(verifier, "run_engine", run_engine_)
    run(PLUGIN)
    document = json.loads(capsys.readouterr().out)
    assert started[0]["--attention-backend"] == "CUSTOM"
    assert started[0]["--kv-cache-dtype"] == "int4_per_token_head"
    speeds = [term for term in document["terms"] if term["name"] in ("ttft", "tpot")]
    assert speeds
    assert all(term["predicted"] > 0 for term in speeds)


@pytest.mark.parametrize(
    ("reason", "found", "said"),
    [("it needs an NVIDIA GPU", ["kvpareto"], "it needs an NVIDIA GPU"),
     (None, [], "not installed as a package")],
)  # fmt: skip
def test_without_the_plugin_exit_3_and_the_line_to_type(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: str | None,
    found: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(verifier, "why_not", lambda: reason)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **asked: found)
    assert run(PLUGIN) == 3
    document = json.loads(capsys.readouterr().out)
    assert said in document["error"]
    assert document["install"] == install_command("vllm")


def test_the_plugin_is_vllms_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--plugin", "-m", "Qwen/Qwen3-8B"]) == 2
    assert "--engine vllm" in capsys.readouterr().err
