"""The quick search for the longest context of engines that place, held to a plain one."""

import random
from dataclasses import replace
from functools import cache

import pytest

from kvpareto.planner.search import longest_safe
from kvpareto.planner.search.bisection import last
from kvpareto.planner.search.longest_safe import safe_fitting
from kvpareto.planner.search.placed import table
from kvpareto.planner.search.placed.questions import Table, evaluate_request
from kvpareto.planner.search.request import Request
from kvpareto.planner.typed_request import typed_request

ASKED = [
    ("sglang", "Qwen/Qwen3-8B", "H100", (20, 400)),
    ("sglang", "meta-llama/Llama-3.1-8B-Instruct", "4090", (2, 60)),
    ("vllm", "Qwen/Qwen2.5-7B-Instruct", "H100", (100, 1000)),
    ("vllm", "deepseek-ai/DeepSeek-V2-Lite", "2xL40S", (200, 3000)),
    ("vllm", "google/gemma-3-4b-it", "L4", (10, 100)),
    ("vllm-plugin", "Qwen/Qwen3-8B", "H200", (20, 300)),
    ("llama.cpp", "Qwen/Qwen3-8B", "3060", (1, 8)),
    ("llama.cpp", "openai/gpt-oss-20b", "4060", (1, 8)),
]
STEP = 512


def plain(request: Request, most: int) -> list[int | None]:
    """The longest contexts, by tables of everything at every context that is tried."""

    @cache
    def at(context: int) -> Table:
        return evaluate_request(
            replace(request, workload=replace(request.workload, context=context))
        )

    def possible(steps: int, *, usual: bool) -> bool:
        table = at(min(steps * STEP, most))
        return bool(safe_fitting(request, table, usual=usual).any())

    ends = [last(lambda n, u=u: possible(n, usual=u), -(-most // STEP)) for u in (True, False)]
    return [min(end * STEP, most) or None for end in ends]


@pytest.mark.parametrize(
    ("engine", "model", "gpu", "users"), ASKED, ids=[f"{e}-{g}" for e, _, g, _ in ASKED]
)
def test_it_ends_where_the_plain_search_does(
    engine: str, model: str, gpu: str, users: tuple[int, int]
) -> None:
    draw = random.Random(model)
    for _ in range(4):
        request = typed_request(
            model,
            engine=engine,
            gpu=gpu,
            offline=True,
            users=draw.randint(*users),
            output=draw.choice([16, 512]),
            accept_risk=draw.random() < 0.5,
            max_loss=draw.choice([None, 0.01, 0.1]),
            ram=draw.choice([None, "12GB"]) if engine == "llama.cpp" else None,
        )
        found = longest_safe.longest_safe(request, 32_000, STEP)
        contexts = [one.workload.context if one is not None else None for one in found]
        assert contexts == plain(request, 32_000)


def test_thousands_of_users_are_not_timed_at_every_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed = 0
    place = table.placement_of

    def counted(*asked: object) -> object:
        nonlocal placed
        placed += 1
        return place(*asked)

    monkeypatch.setattr(table, "placement_of", counted)
    request = typed_request("Qwen/Qwen3-8B", engine="vllm", gpu="H200", users=3000, offline=True)
    usual, every = longest_safe.longest_safe(request, 40_000)
    assert usual is every is not None
    assert placed == len(every.space)
