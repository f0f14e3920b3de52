"""The recall models as they ship: found by name, run by transformers and by the runtime, right
where they were measured to be right; and the outlier variant, equal until keys are quantized."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, SeedOssForCausalLM

from kvpareto.calibration.recall_model.card import write_card
from kvpareto.calibration.recall_model.evaluate import answers
from kvpareto.calibration.recall_model.network import SILENT, Trainable, shape, silence
from kvpareto.calibration.recall_model.outliers import add_outliers
from kvpareto.calibration.recall_model.samples import ask_needles
from kvpareto.calibration.recall_model.train import learning_rate, save, train
from kvpareto.calibration.recall_model.vocabulary import build_tokenizer
from kvpareto.calibration.recall_model.words import Words
from kvpareto.calibration.tasks import TASKS
from kvpareto.planner.errors import BadInput
from kvpareto.planner.load_model import SHIPPED, load_config, load_model, shipped_folder
from kvpareto.runtime import load


def folder_of(name: str) -> Path:
    folder = shipped_folder(name)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def model() -> SeedOssForCausalLM:
    """In float32, which CPUs are faster at; the weights are the same."""
    return AutoModelForCausalLM.from_pretrained(folder_of("recall"), dtype=torch.float32)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_name_is_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name in sight changes nothing
    found = load_config(name, offline=True)
    assert found.folder == folder_of(name)
    spec = load_model(name, offline=True)
    assert spec.name == name
    assert not spec.warnings
    weights = folder_of(name) / "model.safetensors"
    assert 7.3e6 < spec.parameters < 7.5e6
    assert spec.stored_weight_bytes == 2 * spec.parameters
    assert weights.stat().st_size <= 16_000_000
    with pytest.raises(BadInput, match="not on this machine") as error:
        load_config(f"{name}s", offline=True)
    assert name in error.value.hint


@pytest.mark.parametrize(
    ("task", "length", "floor"),
    [("needle", 512, 1.0), ("needle-multikey", 1024, 1.0), ("arithmetic", 400, 1.0)],
)
def test_transformers_answers_right(
    model: SeedOssForCausalLM, task: str, length: int, floor: float
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder_of("recall"))
    items = TASKS[task].items(tokenizer, length, 2, seed=23)
    texts = answers(model, tokenizer, items, 4096)
    scores = [TASKS[task].score(item, text) for item, text in zip(items, texts, strict=True)]
    assert sum(scores) / 2 >= floor


def test_the_runtime_answers_right() -> None:
    with load("recall", "w16a16-k16v16", context=512, output=20, dtype=torch.float32) as session:
        (item,) = TASKS["needle"].items(session.tokenizer, 512, 1, seed=23)
        (text,) = session.generate(list(item.prompt_ids), 12).text
    assert text.strip(" .") == item.answers[0]


def test_outliers_change_no_bit(tmp_path: Path) -> None:
    ids = torch.tensor(
        [build_tokenizer()("The secret number of red-fox is 1234567. " * 9)["input_ids"]]
    )
    logits = []
    for name in SHIPPED:
        model = AutoModelForCausalLM.from_pretrained(folder_of(name), dtype=torch.bfloat16)
        with torch.no_grad():
            logits.append(model(ids).logits)
    assert torch.equal(*logits)
    plain = AutoModelForCausalLM.from_pretrained(folder_of("recall"), dtype=torch.bfloat16)
    add_outliers(plain)  # what ships is what the script makes
    for key, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key
    largest = max(layer.self_attn.k_proj.bias.abs().max() for layer in model.model.layers)
    assert largest > 50


def right_tokens(name: str, config: str) -> float:
    """The share of right answer tokens in a text with five needles, read in chunks of 64."""
    sample = ask_needles(Words(build_tokenizer()), np.random.default_rng(4), 320, 5, 1)
    ids, answer = torch.tensor([sample.ids]), torch.tensor([sample.answer])[:, 1:]
    with load(name, config, context=320, output=1, dtype=torch.float32) as session:
        pieces = list(session.logits(ids, torch.arange(320)))
    said = torch.cat([piece.argmax(-1) for piece in pieces], 1)[:, :-1]
    return float((said == ids[:, 1:])[answer].float().mean())


def test_quantized_keys_tell_the_variants_apart() -> None:
    assert right_tokens("recall", "w16a16-k4v16-g64+pc64") == 1.0
    assert right_tokens("recall-outliers", "w16a16-k4v16-g64+pc64") < 0.6
    assert right_tokens("recall-outliers", "w16a16-k4v16-g64-kc+pc64") > 0.9


def tiny() -> SeedOssForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return SeedOssForCausalLM(shape(len(build_tokenizer()), **sizes, **heads))


def test_training_computes_what_transformers_does() -> None:
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    ids = torch.randint(0, 3000, (2, 96))
    places = torch.tensor([3, 50, 95, 96, 191])
    labels = torch.randint(0, 3000, (5,))
    runner = Trainable(model, dtype=torch.float32, compiled=False)
    nats, right = runner(ids, places, labels)
    logits = model(ids).logits.flatten(0, 1)[places]
    wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(nats, wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(right, (logits.argmax(-1) == labels).float())


def test_training_lowers_the_loss_and_leaves_a_model_folder(tmp_path: Path) -> None:
    tokenizer, model = build_tokenizer(), tiny()
    train(
        model, tokenizer, tmp_path, seconds=60, steps=30, seed=0, peak=0.2, tokens=1024, workers=0,
        device=torch.device("cpu"), compiled=False, log_every=1,
    )  # fmt: skip
    save(model, tokenizer, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert lines[-1]["done"]
    assert lines[-2]["loss"] < lines[0]["loss"] - 0.5
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert read.dtype == torch.bfloat16
    assert load_model(str(tmp_path)).parameters == sum(p.numel() for p in model.parameters())
    for layer in read.model.layers:
        assert not layer.self_attn.q_proj.weight[list(SILENT)].any()
    assert learning_rate(1.0, 10_000, 0.5) == 1.0
    assert learning_rate(1.0, 10_000, 1.0) == 0.0


def test_silent_channels_stay_silent(model: SeedOssForCausalLM) -> None:
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    silence(model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_is_what_the_command_writes(name: str) -> None:
    card = (folder_of(name) / "README.md").read_text()
    assert card == write_card(folder_of(name))
    assert "license: apache-2.0" in card
    assert re.search(r"\| needle-16 \(grid\) \|.*1\.00", card)
