"""Lengths that the model was not trained for: what extends it, and when its config does already."""

import json
from pathlib import Path
from typing import Any

import pytest

import kvpareto
from kvpareto import profiles
from kvpareto.planner.rope_kinds import STRETCHES


def note(words: list[str]) -> str:
    (found,) = [line for line in words if "was made for" in line]
    return found


def asked(model: str, **words: Any) -> str:
    return note(kvpareto.plan(model, gpu="H200", offline=True, **words)["warnings"])


def test_the_factor_is_of_the_tokens_asked() -> None:
    said = asked("Qwen/Qwen3-8B", context=100_000, output=512)
    assert '"factor": 2.5, "original_max_position_embeddings": 40960' in said  # 2.4539 rounded up
    assert '"factor": 1.1' in asked("Qwen/Qwen3-8B", context=41_000, output=512)


@pytest.mark.parametrize(
    ("model", "stretched"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3, factor 8, from 8,192 tokens"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama3, factor 8, from 8,192 tokens"),
        ("google/gemma-3-4b-it", "linear, factor 8"),
    ],
)
def test_a_config_that_stretches_already_is_not_told_to(model: str, stretched: str) -> None:
    said = asked(model, context=200_000)
    assert f"already ({stretched})" in said
    assert '"factor"' not in said


@pytest.mark.parametrize("kind", ["superrope", ["yarn"]])
def test_a_kind_of_rope_that_nobody_knows_is_said_and_credited_with_nothing(
    kind: object, tmp_path: Path
) -> None:
    config = json.loads(profiles.read("models/Qwen--Qwen3-8B.json"))
    config["rope_scaling"] = {"rope_type": kind, "factor": 8}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    found = kvpareto.plan(path, gpu="H200", context="100k", offline=True)
    assert "is not known: transformers may not run it" in " ".join(found["warnings"])
    assert "trained for that" not in " ".join(found["warnings"])


def test_the_kinds_of_rope_are_those_of_transformers() -> None:
    rope = pytest.importorskip("transformers.modeling_rope_utils")
    assert {*rope.ROPE_INIT_FUNCTIONS} <= {*STRETCHES}


def test_the_longest_context_says_what_ends_it() -> None:
    document = kvpareto.max_context("Qwen/Qwen3-8B", gpu="H200", offline=True)
    assert document["max_context"][0]["max_context"] == 40_960 - 512
    assert "for N times 40,960 tokens" in note(document["warnings"])
    short = kvpareto.max_context("Qwen/Qwen3-8B", budget="8GB", offline=True)
    assert not [line for line in short["warnings"] if "YaRN" in line]
