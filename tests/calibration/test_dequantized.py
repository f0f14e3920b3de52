"""A checkpoint in 8-bit floats is calibrated and verified as its dequantized weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kvpareto.cli import run
from tests.support.data_files import STORIES


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with fp8 matrices, a scale each."""
    folder = tmp_path_factory.mktemp("fp8") / "stories-fp8"
    shutil.copytree(STORIES, folder)
    config = json.loads((folder / "config.json").read_text())
    section = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": None}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": section}))
    tensors = {}
    for name, value in load_file(folder / "model.safetensors").items():
        tensors[name] = value
        if name.endswith("_proj.weight"):
            scale = value.abs().max() / 448
            tensors[name] = (value / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.usefixtures("few_published_rows")
def test_fp8_is_calibrated_planned_and_verified(
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    model = ["-m", str(stored)]
    small = ["--context", "256", "--tasks", "arithmetic", "--items", "2"]
    assert run(["calibrate", *model, *small, "--runs", "2", "--json"]) == 0
    told = capfd.readouterr()
    assert json.loads(told.out)["configurations"] == 2
    assert "stored as fp8" in told.err
    assert "dequantized to 16 bits" in told.err
    plan = ["plan", *model, "--budget", "2GB", "--context", "256", "--output", "16", "--json"]
    assert run(plan) == 0
    recommended = json.loads(capfd.readouterr().out)["recommended"]
    assert recommended["accuracy"]["provenance"] == "calibrated"
    verify = ["verify", *model, "--config", "w8a16-k8v8", "--budget", "2GB", "--context", "256"]
    scored = ["--tasks", "arithmetic", "--items", "1"]
    code = run([*verify, "--output", "16", "--device", "cpu", *scored, "--json"])
    document = json.loads(capfd.readouterr().out)
    assert code in (0, 1)
    assert "quantized already" not in json.dumps(document)
