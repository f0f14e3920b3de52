"""A model whose scores are NaN or infinite: never verified, never calibrated, one clear line."""

import json
from pathlib import Path

import pytest
import torch

from kvpareto.cli import run
from kvpareto.runtime.failures import NotFinite, are_finite
from kvpareto.runtime.generation.sampling import Sampling
from kvpareto.runtime.session import Session
from tests.support.models.damaged_models import Tensors, with_tensors
from tests.support.runtime_builders import session, small_model

SHAPE = ["--context", "256", "--items", "1", "--tasks", "arithmetic", "--device", "cpu"]
TYPED = ["--config", "w16a16-k8v8", "--budget", "2GB", "--output", "4", "--quick"]
LINE = "next-token scores are not finite"


def broken(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    return with_tensors(tmp_path / "m", broken)


@pytest.mark.parametrize(
    ("row", "finite"),
    [
        ([0.0, -torch.inf], True),
        ([0.0, torch.nan], False),
        ([0.0, torch.inf], False),
        ([-torch.inf, -torch.inf], False),
    ],
)
def test_what_gives_a_distribution(row: list[float], finite: bool) -> None:
    assert are_finite(torch.tensor([row])).tolist() == [finite]


def test_a_verification_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "-m", str(folder), *TYPED, *SHAPE, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verified"] is False
    assert LINE in json.dumps(found)


def test_a_verification_of_transformers_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["--config", "w16a16-k16v16", "--budget", "2GB", "--engine", "transformers"]
    assert run(["verify", "-m", str(folder), *typed, "--output", "4", *SHAPE, "--json"]) == 1
    assert LINE in capsys.readouterr().out


def test_a_calibration_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", "-m", str(folder), "--runs", "2", *SHAPE]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert LINE in lines[-2]
    assert lines[-1].startswith("hint: ")


def with_nan() -> Session:
    model = small_model("llama")
    with torch.no_grad():
        model.get_parameter("lm_head.weight")[50, 0] = torch.nan
    return session(model, "w16a16-k8v8", tokens=16)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_token_is_chosen(temperature: float) -> None:
    with with_nan() as found, pytest.raises(NotFinite, match="after 0 generated tokens"):
        found.generate([5, 6, 7], 4, Sampling(temperature))


def test_no_likelihood_is_given() -> None:
    with with_nan() as found, pytest.raises(NotFinite, match="within the first 3 tokens"):
        list(found.logits([5, 6, 7], torch.tensor([0])))
