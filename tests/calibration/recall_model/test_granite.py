"""Small Granites: what training computes is what transformers computes, and a folder is left that
the planner and the runtime read."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from kvpareto.calibration.grid.score import _run, _Snapshot
from kvpareto.calibration.grid.worker import LoadedModels
from kvpareto.calibration.recall_model.granite import MIXERS, GraniteTrainable
from kvpareto.calibration.recall_model.train import new_model, save, train
from kvpareto.calibration.recall_model.vocabulary import build_tokenizer
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import RecurrentState
from kvpareto.runtime import load

TINY = {
    "hidden_size": 32, "shared_intermediate_size": 48, "intermediate_size": 48,
    "num_attention_heads": 2, "num_key_value_heads": 1, "mamba_n_heads": 4, "mamba_d_head": 16,
    "mamba_d_state": 8,
}  # fmt: skip


def tiny(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return new_model(kind, len(build_tokenizer()), **TINY)


@pytest.mark.parametrize("kind", MIXERS)
def test_training_computes_what_transformers_does(kind: str) -> None:
    """Three chunks of the scan in each of two sequences."""
    model = tiny(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    ids = torch.randint(0, 3000, (2, 192))
    places = torch.tensor([3, 63, 64, 150, 191, 192, 300, 383])
    labels = torch.randint(0, 3000, (8,))
    runner = GraniteTrainable(model, dtype=torch.float32, compiled=False)
    nats, right = runner(ids, places, labels)
    logits = model.eval()(ids).logits.flatten(0, 1)[places]
    wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(nats, wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(right, (logits.argmax(-1) == labels).float())


@pytest.mark.parametrize("kind", MIXERS)
def test_training_lowers_the_loss_and_leaves_a_model_folder(kind: str, tmp_path: Path) -> None:
    tokenizer, model = build_tokenizer(), tiny(kind)
    train(
        model, tokenizer, tmp_path, seconds=60, steps=12, seed=0, peak=1.5, tokens=1024, workers=0,
        device=torch.device("cpu"), compiled=False, log_every=1,
    )  # fmt: skip
    save(model, tokenizer, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert lines[-1]["done"]
    assert sum(line["loss"] for line in lines[-4:-1]) < 3 * (lines[0]["loss"] - 0.3)
    spec = load_model(str(tmp_path))
    assert spec.parameters == sum(p.numel() for p in model.parameters())
    states = sum(n for mixer, n in spec.mixer_counts if isinstance(mixer, RecurrentState))
    assert states == (6 if kind == "granite-hybrid" else 0)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    ids = tokenizer("the secret number of red-fox is 1234567.")["input_ids"]
    with load(str(tmp_path), "w16a16-k16v16", context=64, output=4, dtype=torch.float32) as run:
        assert run.tokenizer.decode(ids) == tokenizer.decode(ids)
        assert list(run.tokenizer(tokenizer.decode(ids))["input_ids"]) == ids


@torch.inference_mode()
def test_each_question_of_the_grid_starts_from_the_states_of_its_text(tmp_path: Path) -> None:
    tokenizer, model = build_tokenizer(), tiny("granite-hybrid")
    save(model, tokenizer, tmp_path)
    text, first, second = (torch.randint(3, 3000, (1, n)) for n in (70, 9, 9))
    with load(str(tmp_path), "w16a16-k4v4-g32", context=96, output=4, dtype=torch.float32) as run:
        _run(run, text, keep=1)
        kept = _Snapshot(run.cache)
        alone = _run(run, second, keep=0)
        kept.restore()
        _run(run, first, keep=0)
        kept.restore()
        assert torch.equal(_run(run, second, keep=0), alone)


def test_texts_of_a_model_with_states_are_read_one_by_one(tmp_path: Path) -> None:
    for kind, at_once in (("granite-hybrid", 1), ("granite-dense", 16)):
        save(tiny(kind), build_tokenizer(), tmp_path / kind)
        assert LoadedModels(tmp_path, "cpu", 0, 16).at_once(str(tmp_path / kind)) == at_once
