"""Answers at other contexts and budgets are those that a plan asked there gives."""

from dataclasses import replace

import pytest

from kvpareto.planner.engines import find_engine
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.recommend import recommend
from kvpareto.planner.search.request import Request
from kvpareto.planner.search.sweep import (
    budgets_around,
    contexts_of,
    over_chunks,
    over_contexts,
    sweep,
)
from kvpareto.planner.workload import Workload


@pytest.fixture(scope="module")
def request_() -> Request:
    return Request(
        spec=load_model("Qwen/Qwen3-8B", offline=True),
        workload=Workload(8192, 512, 1),
        engine=find_engine("kvpareto"),
        budget=10 * 10**9,
        hardware=find_gpu("4090"),
    )


def test_each_answer_is_the_plan_for_that_context_and_budget(request_: Request) -> None:
    budgets = [6 * 10**9, 9 * 10**9, 40 * 10**9]
    for answers in sweep(request_, [2048, 32768], budgets):
        for budget, index in zip(budgets, answers.recommended, strict=True):
            asked = replace(
                request_,
                budget=budget,
                workload=replace(request_.workload, context=answers.context),
            )
            if index is None:
                with pytest.raises(NothingFits):
                    recommend(asked)
                continue
            there, planned = answers.points[index], recommend(asked).recommended
            assert (there.config, there.memory) == (planned.config, planned.memory)
            assert (there.accuracy, there.latency) == (planned.accuracy, planned.latency)


def test_something_fits_and_something_does_not(request_: Request) -> None:
    (answers,) = sweep(request_, [8192], [6 * 10**9, 40 * 10**9])
    assert answers.recommended[0] is None
    assert answers.recommended[1] is not None


def test_budgets_are_even_in_the_logarithm_with_the_asked_one_in_the_middle() -> None:
    assert budgets_around(16_000, 5) == [4000, 8000, 16_000, 32_000, 64_000]
    assert budgets_around(12 * 10**9)[12] == 12 * 10**9
    with pytest.raises(BadInput, match="middle"):
        budgets_around(100, 4)


def test_contexts_end_where_the_model_does(request_: Request) -> None:
    contexts = contexts_of(request_)
    assert contexts == sorted(set(contexts))
    assert request_.workload.context in contexts
    assert contexts[-1] + request_.workload.output == request_.spec.max_context


def test_a_context_beyond_the_model_is_still_drawn(request_: Request) -> None:
    far = replace(request_, workload=replace(request_.workload, context=10**6))
    assert contexts_of(far)[-1] == 10**6


def test_one_configuration_over_contexts_and_chunks(request_: Request) -> None:
    config = recommend(request_).recommended.config
    points = over_contexts(request_, config, [1024, 4096])
    assert [p.workload.context for p in points] == [1024, 4096]
    assert points[0].memory.total < points[1].memory.total
    chunks = [p.config.chunk for p in over_chunks(request_, config)]
    assert chunks[-1] is None
    assert chunks[:-1] == sorted(chunks[:-1])
    assert max(chunks[:-1]) < request_.workload.context
