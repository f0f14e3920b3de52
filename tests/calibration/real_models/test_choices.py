"""Multiple choice by likelihood, and maps learnt from a text that was prepared for them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from kvpareto.calibration.real_models import choices, jobs, measures
from kvpareto.calibration.real_models.campaign import WorkerCampaign
from kvpareto.calibration.real_models.material import maps_text, prepare
from kvpareto.calibration.real_models.rows import CHOICES, DIVERGENCE, read_rows
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.runtime import load
from tests.support.data_files import STORIES

LINES = [
    {
        "subject": subject,
        "question": f"Which of these is number {number}" + " of all the animals" * (number % 3),
        "choices": ["cat", "dog", "bird", "fish"],
        "answer": number % 4,
    }
    for subject in ("some_animals", "other_animals")
    for number in range(8)
]


class Says:
    """A session that finds one letter the likeliest, always."""

    device = torch.device("cpu")

    def __init__(self, token: int) -> None:
        self._token = token
        self.batches: list[int] = []

    def prefill(self, rows: list[list[int]]) -> torch.Tensor:
        self.batches.append(len(rows))
        logits = torch.zeros(len(rows), 600)
        logits[:, self._token] = 1.0
        logits[:, 599] = 2.0  # likelier than any letter, which does not matter
        return logits


def test_examples_are_not_asked_and_prompts_end_before_the_answer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    held = choices.prompts(tokenizer, LINES, 2)
    assert len(held["rows"]) == 4  # two of each subject, behind its five examples
    sizes = [len(row) for row in held["rows"]]
    assert sizes == sorted(sizes)
    text = tokenizer.decode(held["rows"][0], skip_special_tokens=True)
    assert text.endswith("Answer:")
    assert text.count("Answer:") == choices.SHOTS + 1
    assert "number 0" in text
    assert ("number 5" in text) != ("number 6" in text)
    assert sorted(held["answers"]) == [1, 1, 2, 2]


def test_the_likeliest_letter_is_the_answer() -> None:
    held = {
        "rows": [[1, 2]] * 20,
        "answers": [i % 4 for i in range(20)],
        "letters": [10, 20, 30, 40],
    }
    session = Says(30)
    found = choices.digits(session, held)  # type: ignore[arg-type]
    assert found == [int(i % 4 == 2) for i in range(20)]
    assert session.batches == [choices.BATCH] * 2


def test_choices_and_named_tasks_are_measured_without_a_text(tmp_path: Path) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    shutil.copytree(STORIES, models / "stories")
    source = tmp_path / "mmlu.jsonl"
    source.write_text("\n".join(map(json.dumps, LINES)))
    text = tmp_path / "some.txt"
    text.write_text("Once upon a time there was a little dog. " * 60)
    written = prepare(models / "stories", text=None, contexts=(), mmlu=source, each=2, maps=text)
    assert written == ["maps.safetensors", "mmlu.json"]
    settings = jobs.CampaignSettings(models, out, (64,), tasked=("w16a16-k4v4+affine",))
    WorkerCampaign(settings, gpus=0, workers=1, seconds=120).run()
    pairs = read_rows(out.glob("*.jsonl"))
    rows = {row["config"]: row for _, row in pairs}
    assert {row["kind"] for row in rows.values()} == {CHOICES}  # no text: no DIVERGENCE
    assert set(rows) == {"w16a16-k16v16+pc1024", "w16a16-k4v4+affine+pc1024"}
    for row in rows.values():
        assert len(row["tasks"][choices.MMLU]["items"]) == 4
    found = maps_text(models / "stories")
    assert found is not None
    assert pairs[0][0]["maps"] == {"text": "some.txt", "tokens": len(found[0])}


def test_maps_are_learnt_from_the_text_that_was_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(measures, "learn_maps", lambda model, tokens: seen.append(tokens) or {})
    models = tmp_path / "models"
    shutil.copytree(STORIES, models / "stories")
    group = jobs.JobGroup(models / "stories", "stories", None, DIVERGENCE, 64)  # type: ignore[arg-type]
    folder = str(models / "stories")
    model = load(folder, Configuration(), context=8, output=1, device="cpu", offline=True)
    measures._learn_affine(model, group)
    text = tmp_path / "some.txt"
    text.write_text("Once upon a time there was a little dog. " * 60)
    prepare(models / "stories", text=None, contexts=(), maps=text)
    measures._learn_affine(model, group)
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])
    wanted = maps_text(models / "stories")
    assert wanted is not None
    assert torch.equal(seen[1], wanted[0])
