"""AWQ checkpoints of both libraries, loaded and run without either of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kvpareto import profiles
from kvpareto.planner.errors import BadInput, MissingDependency
from kvpareto.runtime.weights import awq_format, quantize
from kvpareto.runtime.weights import awq_quantizer as awq_adapter
from kvpareto.runtime.weights.build import read_hf_config
from kvpareto.runtime.weights.linear import W4Linear
from kvpareto.runtime.weights.load_awq import is_awq, load_awq
from kvpareto.runtime.weights.random import random_model
from tests.support.models.weights_models import PROMPT, TINY, TINY_MOE

DATA = Path(__file__).parents[2] / "data"
LIBRARIES = pytest.mark.parametrize("library", ["autoawq", "gptqmodel"])
PARTS = ("qweight", "qzeros", "scales")


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def dequantized(folder: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's state as plain fp32 matrices, by the format's definition."""
    stored = load_file(folder / "model.safetensors")
    plain = {name: t.float() for name, t in stored.items() if not name.endswith(PARTS)}
    for name in [n.removesuffix(".qweight") for n in stored if n.endswith(".qweight")]:
        tensors = awq_format.AWQTensors(*(stored[f"{name}.{part}"] for part in PARTS))
        plain[f"{name}.weight"] = awq_format.dequantize(tensors)
    return plain


@LIBRARIES
def test_a_checkpoint_runs_as_its_dequantized_weights_do(library: str) -> None:
    folder = DATA / f"awq_{library}"
    config = read_hf_config(folder)
    del config.quantization_config
    reference = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    reference.load_state_dict(dequantized(folder))
    loaded = load_awq(folder, dtype=torch.float32)
    assert sum(isinstance(m, W4Linear) for m in loaded.modules()) == 14
    prompt = load_file(folder / "expected.safetensors")["prompt"]
    with torch.no_grad():
        assert relative_error(loaded(prompt).logits, reference(prompt).logits) < 1e-5


@LIBRARIES
def test_the_search_beats_rounding(library: str) -> None:
    """Distances from the 16-bit model's logits, which are stored beside the checkpoint."""
    folder = DATA / f"awq_{library}"
    expected = load_file(folder / "expected.safetensors")
    searched = load_awq(folder, dtype=torch.float32)(expected["prompt"]).logits
    rounded = relative_error(expected["rounded"], expected["logits"])
    assert 1e-3 < relative_error(searched, expected["logits"]) < rounded


def test_running_the_format_needs_no_awq_library() -> None:
    program = f"""
import sys
for name in ("gptqmodel", "awq", "autoawq"):
    sys.modules[name] = None  # any import of them fails
from kvpareto.runtime.weights.load_awq import load_awq
import torch
model = load_awq({str(DATA / "awq_gptqmodel")!r}, dtype=torch.float32)
assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("config", [TINY, TINY_MOE], ids=["llama", "qwen3_moe"])
def test_saving_and_loading_returns_the_same_model(config: dict, tmp_path: Path) -> None:
    model = random_model(config, 4, dtype=torch.float32)
    quantize.save_awq(model, tmp_path)
    assert is_awq(tmp_path)
    again = load_awq(tmp_path, dtype=torch.float32)
    assert torch.equal(again(PROMPT).logits, model(PROMPT).logits)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    model = random_model({**TINY, "tie_word_embeddings": True}, 4, dtype=torch.float32)
    quantize.save_awq(model, tmp_path)
    again = load_awq(tmp_path, dtype=torch.float32)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again(PROMPT).logits, model(PROMPT).logits)


def damaged(tmp_path: Path, change: str) -> Path:
    """A copy of a good checkpoint with one thing wrong."""
    folder = tmp_path / "bad"
    shutil.copytree(DATA / "awq_autoawq", folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    tensors = load_file(folder / "model.safetensors")
    if change == "bits":
        config["quantization_config"]["bits"] = 8
    elif change == "gptq":
        config["quantization_config"]["quant_method"] = "gptq"
    elif change == "gemv":
        config["quantization_config"]["version"] = "gemv"
    elif change == "width":
        config["intermediate_size"] = 512
    elif change == "missing":
        del tensors["model.norm.weight"]
    elif change == "zeros":
        del tensors["model.layers.1.mlp.up_proj.qzeros"]
    elif change == "surplus":
        tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(32)
    elif change == "file":
        (folder / "model.safetensors").unlink()
    path.write_text(json.dumps(config))
    if change != "file":
        save_file(tensors, str(folder / "model.safetensors"))
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("bits", "not a 4-bit AWQ"),
        ("gptq", "not a 4-bit AWQ"),
        ("gemv", "version 'gemv'"),
        ("width", "mlp"),
        ("missing", r"model\.norm\.weight"),
        ("zeros", r"up_proj\.qzeros"),
        ("surplus", "q_norm"),
        ("file", r"model\.safetensors"),
    ],
)
def test_a_damaged_checkpoint_is_named(change: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says):
        load_awq(damaged(tmp_path, change))


def test_quantizing_without_a_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awq_adapter, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as failure:
        quantize.quantize(DATA / "awq_autoawq", "nowhere")
    assert "[awq]" in failure.value.hint


def test_gptqmodel_is_preferred_where_both_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awq_adapter, "find_spec", lambda name: object())
    assert awq_adapter.choose() == "gptqmodel"
    assert awq_adapter.choose("autoawq") == "autoawq"


def test_the_bundled_calibration_text_is_a_page() -> None:
    text = profiles.read(quantize.DEFAULT_TEXT)
    assert 4000 < len(text) < 8000
