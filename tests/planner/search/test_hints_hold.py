"""What a hint says to type is typed, and plans: of every engine, machine and want."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from kvpareto import api
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.search.host_memory import budget_that_holds
from kvpareto.planner.search.placed.questions import placement_of
from kvpareto.planner.typed_request import typed_request

SMALL_HOST = {"engine": "llama.cpp", "ram": "1GB", "max_loss": "2%"}
QWEN, LLAMA, MOE = "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B"
CASES: list[tuple[str, dict[str, Any]]] = [
    (QWEN, {"budget": "4GB", "max_loss": "0.5%"}),
    (QWEN, {"gpu": "4090", "users": "300"}),
    (QWEN, {"engine": "transformers", "gpu": "3060", "context": "128k"}),
    (QWEN, {"engine": "llama.cpp", "ram": "4GB"}),
    (QWEN, {"engine": "llama.cpp", "budget": "2GB"}),
    (QWEN, {"engine": "llama.cpp", "budget": "500MB", "ram": "500MB"}),
    (QWEN, {"engine": "llama.cpp", "budget": "4GB", "ram": "4GB"}),
    (QWEN, {"engine": "llama.cpp", "gpu": "2x3060", "reserve": "9GB", "context": "64k"}),
    (LLAMA, {**SMALL_HOST, "budget": "1GB"}),
    ("openai/gpt-oss-20b", {**SMALL_HOST, "budget": "1GB", "context": "16k"}),
    (MOE, {"engine": "llama.cpp", "gpu": "2x3060", "budget": "12GB", "users": "4"}),
    (QWEN, {"engine": "vllm", "gpu": "3060", "budget": "6GB"}),
    (QWEN, {"engine": "sglang", "gpu": "L4", "users": "32"}),
    (LLAMA, {"gpu": "4090", "budget": "6GB", "tpot": "20ms"}),
]


def typed(hint: str, words: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part of a hint that can be typed, and `words` with it."""
    for part in hint.split(": ", 1)[1].split("; or "):
        asked = dict(words)
        option = re.match(r"--([a-z-]+) ([^\s,;]+)", part)
        budget = re.match(r"a budget of ([^\s,;]+)", part)
        if part.startswith("--accept-risk"):
            asked["accept_risk"] = True
            if "without --max-loss" in part:
                asked.pop("max_loss", None)
        elif option is not None:
            asked[option[1].replace("-", "_")] = option[2]
            if "in place of --budget" in part:
                asked.pop("budget")
        elif budget is not None:
            asked["budget"] = budget[1]
            if also := re.search(r" with --ram ([^\s,;]+)", part):
                asked["ram"] = also[1]
        else:
            assert "programs" in part, part
            continue
        yield part, asked


@pytest.mark.parametrize(
    ("model", "words"), CASES, ids=lambda v: " ".join(v.values()) if isinstance(v, dict) else v
)
def test_every_way_that_a_hint_names_plans(model: str, words: dict[str, Any]) -> None:
    with pytest.raises(NothingFits) as caught:
        api.plan(model, offline=True, **words)
    ways = list(typed(caught.value.hint or "", words))
    assert ways
    for part, asked in ways:
        assert api.plan(model, offline=True, **asked)["fits"], part


def test_a_budget_that_host_memory_leaves_too_small_is_named_with_more_of_it() -> None:
    """The token table lies in host memory whatever the budget is."""
    words = {**SMALL_HOST, "budget": "1GB"}
    with pytest.raises(NothingFits) as caught:
        api.plan(LLAMA, offline=True, **words)
    assert re.fullmatch(r"this would fit: a budget of \S+ with --ram \S+", caught.value.hint or "")
    assert caught.value.details["would_fit"]["budget"] is None


def test_the_budget_of_several_cards_is_found_by_placing_again() -> None:
    """Two cards of half the bytes hold less than one of them all: layers are whole."""
    asked = {"engine": "llama.cpp", "gpu": "2x3060", "budget": "12GB", "users": "4"}
    request = typed_request(MOE, offline=True, **asked)  # type: ignore[arg-type]
    with pytest.raises(NothingFits) as caught:
        api.plan(MOE, offline=True, **asked)
    found = caught.value.details
    config = Configuration.parse(found["needed_config"])
    need = placement_of(request, config, request.workload).needed
    holds = budget_that_holds(request, config, need)
    assert holds is not None
    assert holds > need
    assert found["would_fit"]["budget_bytes"] == holds


@pytest.mark.parametrize("budget", ["500MB", "23GB"])
def test_what_is_too_slow_at_any_memory_is_not_called_a_loss(budget: str) -> None:
    words = {"gpu": "4090", "budget": budget, "ttft": "10ms", "offline": True}
    with pytest.raises(NothingFits, match=r"as fast as asked: TTFT 10 ms \(the fastest") as caught:
        api.plan(QWEN, **words)
    assert "max-loss" not in (caught.value.hint or "")
    assert ("more memory" in (caught.value.hint or "")) == (budget == "500MB")
