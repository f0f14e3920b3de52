"""Servers of prompts whose lengths differ: planned for the mean, with a word on the longest."""

from typing import Any

import pytest

from kvpareto import api


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_where_lengths_differ_a_plan_says_how_many_of_the_longest_fit(engine: str) -> None:
    words: dict[str, Any] = {"engine": engine, "gpu": "4090", "users": 16, "offline": True}
    found = api.plan("Qwen/Qwen3-8B", **words, context="2k,32k:0.9,0.1")
    most = found["recommended"]["serving"]["cache_tokens_low"] // (32_768 + 512)
    (note,) = (note for note in found["warnings"] if "wait" in note)
    assert 1 < most < 16
    assert note.startswith(f"if more than {most} sequences of 32,768 tokens come together")
    assert not [
        n for n in api.plan("Qwen/Qwen3-8B", **words, context="2k")["warnings"] if "wait" in n
    ]
