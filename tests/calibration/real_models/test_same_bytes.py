"""Each method at the same bytes: sizes, classes, and the page from rows."""

from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.real_models import jobs
from kvpareto.calibration.real_models.rows import DIVERGENCE, TASKS, Row, write_rows
from kvpareto.calibration.real_models.same_bytes import (
    FIRST,
    REST,
    TASKED,
    bits_a_value,
    same_bytes_design,
    tasked_design,
    write_table,
)
from kvpareto.calibration.real_models.same_bytes_tasks import tasks_table
from kvpareto.planner.formats.configuration import Configuration

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"  # heads of 64
GEMMA = "google/gemma-3-270m"  # one KV head of 256


def test_every_configuration_is_there_once() -> None:
    design = same_bytes_design()
    assert len(set(design)) == len(design) == 1 + len(FIRST) + len(REST)
    assert design[0] == Configuration()


@pytest.mark.parametrize(
    ("model", "text", "bits"),
    [
        (SMOLLM2, "k16v16", 16.0),
        (SMOLLM2, "k2v2", 2.5),
        (SMOLLM2, "k2v2+affine+clip70+sink4", 2.5),  # what does not grow is not in it
        (SMOLLM2, "k2v2-kc128", (2.25 + 2.5) / 2),
        (SMOLLM2, "k6v5", 6.0),
        (GEMMA, "k2v2", 2 + 32 / 256),
        (GEMMA, "kfp8vfp8", 8 + 32 / 256),
    ],
)
def test_bits_count_scales(model: str, text: str, bits: float) -> None:
    assert bits_a_value(model, Configuration.parse(f"w16a16-{text}")) == pytest.approx(bits)


def test_the_design_is_asked_for_by_name(tmp_path: Path) -> None:
    settings = jobs.CampaignSettings(tmp_path, tmp_path, (64,), design="bytes", configurations=3)
    group = jobs.JobGroup(tmp_path, "m", None, DIVERGENCE, 64)  # type: ignore[arg-type]
    texts = [str(config) for config in jobs.configurations(group, settings, ())]
    assert texts == ["w16a16-k16v16", "w16a16-k2v2", "w16a16-k2v2+smooth+rot"]


def test_tasks_have_their_own_and_begin_with_the_unquantized_model(tmp_path: Path) -> None:
    settings = jobs.CampaignSettings(tmp_path, tmp_path, (64,), design="bytes", configurations=3)
    group = jobs.JobGroup(tmp_path, "m", None, TASKS, 2048)  # type: ignore[arg-type]
    texts = [str(config) for config in jobs.configurations(group, settings, ())]
    first = "w16a16-k2v2-kc128+affine+clip70+sink4+pc1024"
    assert texts == ["w16a16-k16v16+pc1024", first, "w16a16-k2v2-kc128+pc1024"]
    assert len(set(tasked_design())) == 1 + len(TASKED)


def test_the_page_is_made_of_the_rows(tmp_path: Path) -> None:
    def row(text: str, kl: float, tail: float) -> Row:
        one = {"n": 300, "kl": kl, "kl_se": 0.03, "top1": 0.5, "top1_se": 0.03}
        end = {"n": 100, "kl": tail, "kl_se": 0.04, "top1": 0.9, "top1_se": 0.0}
        key = {"model": SMOLLM2, "kind": DIVERGENCE, "config": f"w16a16-{text}", "context": 64}
        return {**key, **one, "tail": end}

    header = {
        "environment": {"torch": "2.13.0", "gpu": None},
        "source": {"file": "s.gguf", "sha256": "ab" * 32},
        "seed": 0,
    }
    rows = [row("k2v2", 2.0, 1.0), row("k2v2+rot", 1.0, 1.0), row("klloyd2vlloyd2", 0.25, 0.65)]
    write_rows(tmp_path / "rows.jsonl", [(header, each) for each in rows])
    write_table([tmp_path / "rows.jsonl"], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| SmolLM2-135M-Instruct | 2.5 | `klloyd2vlloyd2` | 0.35 | 60.0 % | 1.75 | 1 |" in page
    # errors of 300 and 100 places: sqrt((300 x .03)^2 + (100 x .04)^2) / 400
    assert "| `k2v2+rot` | 2.50 | 1 | 0.025 | 60.0 % | 2.2 |" in page
    assert "`s.gguf`, SHA-256 `abababababababab…`" in page
    assert "400 places; a CPU, torch 2.13.0" in page


def test_tasks_are_paired_with_the_unquantized_model(tmp_path: Path) -> None:
    def row(text: str, items: str) -> Row:
        task = {"score": sum(map(int, items)) / len(items), "parts": 1, "items": items}
        key = {"model": SMOLLM2, "kind": TASKS, "config": f"w16a16-{text}+pc1024", "context": 2048}
        return {**key, "tasks": {"needle-4": task}}

    header = {"environment": {"torch": "2.11.0", "gpu": "NVIDIA H200"}, "source": {}, "seed": 0}
    whole = "1" * 90 + "0" * 10
    rows = [
        row("k16v16", whole),
        row("k2v2+affine", "0" * 50 + whole[50:]),
        row("k8v8", whole),
        row("k4v4", "0" * 3 + whole[3:]),
    ]
    table = tasks_table([(header, each) for each in rows])
    assert f"**{SMOLLM2}, 2,048 tokens, NVIDIA H200**; 16 bits: needle-4 90.0 %." in table
    # half of 100 items lost: error 100 sqrt(.25 / 99) = 5.0; three: 100 sqrt(.03 x .97 / 99) = 1.7
    assert "| `k2v2+affine` | -50.0 ± 5.0 | no |" in table
    assert "| `k8v8` | +0.0 ± 0.0 | yes |" in table
    assert "| `k4v4` | -3.0 ± 1.7 | ? |" in table


def test_choices_have_a_table_of_their_own_beside_gsm8k() -> None:
    header = {"environment": {"gpu": "some card"}, "source": {}}

    def row(kind: str, task: str, config: str, items: str) -> tuple[dict[str, Any], dict[str, Any]]:
        score = items.count("1") / len(items)
        tasks = {task: {"score": score, "parts": 1, "items": items}}
        config = f"w16a16-{config}+pc1024"
        return header, {"model": "m", "kind": kind, "config": config, "context": 0, "tasks": tasks}

    text = tasks_table(
        [
            row("tasks", "gsm8k", "k16v16", "1111"),
            row("tasks", "gsm8k", "k4v4", "0111"),
            row("choices", "mmlu", "k16v16", "1100"),
            row("choices", "mmlu", "k4v4", "1000"),
        ]
    )
    assert "**m, eight shots, some card**; 16 bits: gsm8k 100.0 %." in text
    assert "**m, five examples, some card**; 16 bits: mmlu 50.0 %." in text
    assert text.count("| `k4v4` | -25.0 ± 25.0 |") == 2


def test_a_table_says_what_its_maps_were_learnt_from() -> None:
    header = {"environment": {"gpu": None}, "source": {}}
    other = {**header, "maps": {"text": "some.txt", "tokens": 8192}}
    task = {"needle-4": {"score": 0.5, "parts": 1, "items": "0101"}}
    row = {"model": "m", "kind": "tasks", "context": 2048, "tasks": task}
    plain = (other, {**row, "config": "w16a16-k16v16"})
    assert "maps from" not in tasks_table([plain, (other, {**row, "config": "w16a16-k4v4"})])
    affine = {**row, "config": "w16a16-k4v4+affine"}
    assert ", a CPU, maps from 8,192 tokens of some.txt**" in tasks_table([plain, (other, affine)])
    assert "maps from" not in tasks_table([plain, (header, affine)])
