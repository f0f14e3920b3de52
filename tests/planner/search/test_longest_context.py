"""The longest context of a plan: it fits, one token more does not, and promises end it too."""

from dataclasses import replace
from typing import Any

import pytest

from kvpareto import api
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.search.choose import safe_points
from kvpareto.planner.search.evaluate import evaluate
from kvpareto.planner.search.infeasible import STEP
from kvpareto.planner.search.max_context import LONGEST, max_context_of, max_contexts
from kvpareto.planner.search.recommend import Request
from kvpareto.planner.search.request import SAFE_LOSS
from kvpareto.planner.workload import Workload
from tests.support.tiny_configs import CONFIGS

GB = 10**9


def test_the_longest_context_fits_and_one_token_more_does_not(qwen: Request) -> None:
    found = max_contexts(replace(qwen, budget=9 * GB))
    assert [x.context for x in found] == sorted((x.context for x in found), reverse=True)
    checked = 0
    for longest in found:
        size = longest.point.memory
        assert size.total_high <= 9 * GB
        if not longest.limited_by_model and longest.point.config.chunk is None:
            more = replace(qwen.workload, context=longest.context + 1)
            config = longest.point.config
            more_size = memory.estimate(qwen.spec, config, more, qwen.engine, qwen.hardware)
            assert more_size.total_high > 9 * GB
            checked += 1
    assert checked or all(x.point.config.chunk for x in found)
    assert len({x.context for x in found}) > 1


def test_the_model_ends_the_context_where_memory_does_not(qwen: Request) -> None:
    (first, *_) = max_contexts(replace(qwen, budget=80 * GB))
    assert first.limited_by_model
    assert first.context == (qwen.spec.max_context or 0) - qwen.workload.output


def test_a_model_without_a_limit_ends_where_no_longer_context_is_looked_for() -> None:
    """A Mamba's memory in chunks does not grow with the prompt: neither memory nor the model ends
    it."""
    spec = read_model(CONFIGS["mamba"], "mamba")
    request = Request(spec, Workload(4096), TRANSFORMERS, 80 * GB)
    found = max_context_of(request, Configuration.parse("w16a16-k16v16+pc512"))
    assert found is not None
    assert (found.limited_by, found.context) == ("search", LONGEST - request.workload.output)
    assert not found.limited_by_model


def test_the_longest_context_is_that_of_all_safe_configurations() -> None:
    """Qwen3-8B in 8 GB: short chunks, which no frontier of a longer context holds, reach 11,264."""
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    request = Request(spec, Workload(32_768), KVPARETO, 8 * GB)
    found = max_contexts(request)
    assert found[0].context >= 11_264
    assert all(one.point.memory.total_high <= 8 * GB for one in found)
    assert all(one.point.accuracy.low >= 1 - SAFE_LOSS for one in found)
    beyond = replace(request, workload=Workload(found[0].context + STEP))
    points = evaluate(spec, beyond.workload, KVPARETO, None).points
    assert not ((points.memory <= 8 * GB) & safe_points(points, SAFE_LOSS)).any()
    usual = [one.point.config for one in found if (one.point.config.chunk or 512) >= 512]
    assert usual[0].chunk == 512


def test_a_context_ends_where_the_promise_does(qwen: Request) -> None:
    config = Configuration.parse("w8a16-k4v4+rot")
    promised = accuracy.predict(qwen.spec, config, 20_000).low
    strict = replace(qwen, budget=80 * GB, max_loss=1.0 - promised)
    longest = max_context_of(strict, config)
    assert longest is not None
    assert longest.limited_by == "accuracy"
    assert accuracy.predict(qwen.spec, config, longest.context).low >= promised - 1e-12
    assert accuracy.predict(qwen.spec, config, longest.context + 1).low < promised


@pytest.mark.parametrize(
    "words",
    [
        {"gpu": "4090", "ttft": "2s"},
        {"gpu": "4090", "tpot": "8ms"},
        {"gpu": "4060", "engine": "llama.cpp", "ttft": "10s"},
        {"gpu": "H100", "engine": "vllm", "users": 16, "ttft": "1s", "tpot": "20ms"},
    ],
    ids=lambda words: " ".join(map(str, words.values())),
)
def test_times_that_are_asked_for_end_the_context(words: dict[str, Any]) -> None:
    """A plan at that length is as fast as asked, and none at a length of a sixteenth more."""
    model = "Qwen/Qwen3-8B"
    found = api.max_context(model, **words, offline=True)["max_context"]
    longest = found[0]["max_context"]
    assert found[0]["limited_by"] == "time"
    asked = {name: float(words[name].rstrip("ms")) for name in ("ttft", "tpot") if name in words}
    for row in found:
        for name, value in asked.items():
            seconds = row[f"{name}_s"]
            assert seconds is not None
            assert seconds <= value * (0.001 if words[name].endswith("ms") else 1)
    assert api.plan(model, **words, context=longest, offline=True)["fits"]
    with pytest.raises(NothingFits, match="as fast as asked"):
        api.plan(model, **words, context=longest * 17 // 16, offline=True)


def test_times_that_nothing_keeps_or_nobody_predicts() -> None:
    with pytest.raises(NothingFits, match="as fast as asked at any context"):
        api.max_context("Qwen/Qwen3-8B", gpu="4090", ttft="1us", offline=True)
    with pytest.raises(BadInput, match="speed is not predicted"):
        api.max_context("Qwen/Qwen3-8B", gpu="H100", engine="sglang", ttft="1s", offline=True)


@pytest.mark.parametrize("objective", ["accuracy", "latency", "memory"])
def test_the_longest_context_is_planned_by_the_objective(objective: str) -> None:
    words = {"gpu": "4090", "objective": objective, "offline": True}
    found = api.max_context("Qwen/Qwen3-8B", **words)["max_context"][0]
    plan = api.plan("Qwen/Qwen3-8B", **words, context=found["max_context"])
    assert plan["recommended"]["config"] == found["config"]
