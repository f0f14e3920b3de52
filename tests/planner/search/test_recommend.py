"""Whole plans of bundled models: what fits, what is recommended, and what is said."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.accuracy.task_kinds import GENERATED_KINDS
from kvpareto.planner.engines import all_engines
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.latency import predict as latency
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.models.spec import Indexer, LatentAttention, ModelSpec
from kvpareto.planner.search.choose import outdone_by, safe_points
from kvpareto.planner.search.evaluate import evaluate
from kvpareto.planner.search.point_arrays import PointArrays
from kvpareto.planner.search.recommend import Plan, Request, recommend
from kvpareto.planner.search.request import SAFE_LOSS
from kvpareto.planner.search.tie_breaking import NOISE
from kvpareto.planner.typed_request import typed_request
from kvpareto.planner.workload import Workload

GB = 10**9


@pytest.fixture(scope="module")
def plan(qwen: Request) -> Plan:
    return recommend(qwen)


def test_the_recommendation_fits_by_the_upper_end_of_its_memory(plan: Plan) -> None:
    assert plan.recommended.memory.total_high <= 12 * GB
    assert plan.considered >= 100_000
    assert 0 < plan.fitting < plan.considered


def test_nothing_usual_that_fits_promises_more_and_is_as_simple(qwen: Request, plan: Plan) -> None:
    table = evaluate(qwen.spec, qwen.workload, qwen.engine, qwen.hardware)
    points = table.points
    candidates = (points.memory <= qwen.budget) & points.usual & safe_points(points, 0.1)
    best = np.flatnonzero(candidates)[np.argmax(points.low[candidates])]
    resolved = max(points.retention[best] - points.low[best], NOISE)
    kept = plan.recommended.accuracy.low
    assert kept >= points.low[best] - resolved
    (mine,) = (
        i
        for i in np.flatnonzero(candidates & np.isclose(points.low, kept, rtol=0, atol=1e-12))
        if table.space.configuration(i) == plan.recommended.config
    )
    same_promise = candidates & (points.low >= kept)
    assert points.complexity[mine] == points.complexity[same_promise].min()


def test_what_people_run_wins(qwen: Request, plan: Plan) -> None:
    """Neither 2-bit values nor chunks of 64 to keep 8-bit weights (issue 12, section 6)."""
    assert str(plan.recommended.config).startswith("w4a16-k8v8")
    assert 512 <= (plan.recommended.config.chunk or 512) <= 4096
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    found = recommend(replace(qwen, spec=spec, hardware=None)).recommended.config
    assert (found.weight_bits, found.k_bits, found.v_bits) == (8, 8, 8)


@pytest.mark.parametrize("gpu", [None, find_gpu("4090")], ids=["no-gpu", "4090"])
def test_every_point_of_a_plan_is_what_the_single_predictions_say(
    qwen: Request, gpu: Hardware | None
) -> None:
    found = recommend(replace(qwen, hardware=gpu))
    for point in (found.recommended, *found.shown, *list(found.frontier)[::17]):
        arguments = qwen.spec, point.config, qwen.workload, qwen.engine, gpu
        assert point.memory == memory.estimate(*arguments)
        alone = accuracy.predict(qwen.spec, point.config, qwen.workload.context)
        assert point.accuracy.low == pytest.approx(alone.low)
        assert point.accuracy.notes == alone.notes
        seconds = latency.predict(*arguments)
        if seconds is None:
            assert point.latency is None
            assert point.seconds is None
        else:
            assert point.latency is not None
            assert point.latency.kind == seconds.kind
            for name in ("ttft_s", "ttft_low", "ttft_high", "tpot_s", "tpot_low", "tpot_high"):
                assert getattr(point.latency, name) == pytest.approx(getattr(seconds, name))


def test_steps_of_layers_that_slide_are_what_a_single_prediction_says() -> None:
    """One shot holds all tokens of a window's layer, a chunk its window: a step reads as much."""
    spec, card = load_model("google/gemma-2-2b-it"), find_gpu("L4")
    workload = Workload(100_000, 512, 4)
    table = evaluate(spec, workload, KVPARETO, card)
    for index in range(0, table.points.tpot.size, 12_347):
        config = table.space.configuration(index)
        alone = latency.predict(spec, config, workload, KVPARETO, card)
        assert alone is not None
        assert table.points.ttft[index] == pytest.approx(alone.ttft_s)
        # the tail in 16 bits is counted as what slides is
        assert table.points.tpot[index] == pytest.approx(alone.tpot_s, rel=0.015)


def test_the_frontier_is_in_order_and_holds_what_is_shown(plan: Plan) -> None:
    sizes = [point.memory.total_high for point in plan.frontier]
    assert sizes == sorted(sizes)
    texts = {str(point.config) for point in plan.frontier}
    assert {str(point.config) for point in plan.shown} <= texts
    assert str(plan.recommended.config) in {str(point.config) for point in plan.shown}
    assert 8 <= len(plan.shown) <= 12


@pytest.mark.parametrize(
    ("words", "there"),
    [
        ({"budget": "12GB"}, True),
        ({"gpu": "4090"}, False),
        ({"engine": "llama.cpp", "ram": "16GB"}, False),  # the processor, whose seconds are said
    ],
)
def test_times_are_multiples_where_no_device_is_named(words: dict[str, str], there: bool) -> None:
    asked = typed_request("Qwen/Qwen3-0.6B", context="2k", offline=True, **words)  # type: ignore[typeddict-item]
    found = recommend(asked)
    assert bool(found.relative_latency) == there
    if there:
        assert found.relative_latency[str(found.recommended.config)] == (1.0, 1.0)
        assert set(found.relative_latency) == {str(point.config) for point in found.shown}


def test_reasons_and_steps_name_numbers(plan: Plan) -> None:
    assert plan.reasons[0].startswith("It fits: ")
    assert f"{plan.considered:,} configurations" in plan.reasons[1]
    assert any(reason.startswith("On NVIDIA GeForce RTX 4090") for reason in plan.reasons)
    assert plan.next_up is not None
    assert plan.next_up.memory.total_high > 12 * GB
    assert str(plan.next_up.config) in plan.steps[0]
    assert plan.next_down is not None
    assert str(plan.next_down.config) in plan.steps[1]


def test_more_memory_never_buys_a_less_accurate_plan(qwen: Request) -> None:
    lows = [
        recommend(replace(qwen, budget=gb * GB)).recommended.accuracy.low
        for gb in (9, 10, 12, 16, 24)
    ]
    for less, more in pairwise(lows):
        assert more >= less - NOISE
    assert lows[-1] >= 1 - NOISE


def test_an_accepted_loss_is_kept(qwen: Request) -> None:
    for objective in ("latency", "memory"):
        found = recommend(replace(qwen, objective=objective, max_loss=0.095))
        assert found.recommended.accuracy.low >= 0.905
        unbound = recommend(replace(qwen, objective=objective))
        assert unbound.recommended.accuracy.low >= 1 - SAFE_LOSS
    with pytest.raises(NothingFits, match=r"keeps 95\.0% of (long )?reasoning"):  # in 4-bit weights
        recommend(replace(qwen, max_loss=0.05))


def test_a_task_that_is_asked_for_is_what_counts(qwen: Request, plan: Plan) -> None:
    tight = replace(qwen, budget=10 * GB, hardware=None)
    for task in ("retrieval", "reasoning", "long_reasoning", "likelihood"):
        found = recommend(replace(tight, task=task)).recommended.accuracy
        assert found.task == task
        assert (found.retention, found.low, found.high) == (
            found.tasks[task].retention,
            found.tasks[task].low,
            found.tasks[task].high,
        )
    weakest = plan.recommended.accuracy
    assert weakest.low == min(weakest.tasks[kind].low for kind in GENERATED_KINDS)
    assert weakest.retention == min(weakest.tasks[kind].retention for kind in GENERATED_KINDS)
    with pytest.raises(BadInput, match="unknown kind of task"):
        replace(tight, task="poetry")


def of_a_new_type(name: str) -> ModelSpec:
    """A hybrid whose type nobody has held to transformers."""
    return replace(load_model(name, offline=True), model_type="new", text_type="")


def with_an_indexer(name: str) -> ModelSpec:
    """A model with latents, whose tokens an indexer chooses as DeepSeek-V3.2's does."""
    spec = load_model(name, offline=True)
    layers = []
    for layer in spec.layers:
        (mixer,) = layer.mixers
        assert isinstance(mixer, LatentAttention)
        layers.append(replace(layer, mixers=(replace(mixer, indexer=Indexer(64, 128, 2048)),)))
    return replace(spec, layers=tuple(layers))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"workload": Workload(200_000)}, "the model was made for"),
        ({"budget": 40 * GB}, "more than NVIDIA GeForce RTX 4090 has"),
        ({"spec": of_a_new_type("Qwen/Qwen3.5-27B")}, "no kernels for recurrent layers"),
        ({"spec": with_an_indexer("deepseek-ai/DeepSeek-V2-Lite-Chat")}, "a sparse indexer"),
    ],
    ids=["too-long", "more-than-the-gpu", "recurrent", "indexer"],
)
def test_warnings(qwen: Request, change: dict[str, object], said: str) -> None:
    found = recommend(replace(qwen, **{"budget": 30 * GB, **change}))  # type: ignore[arg-type]
    assert any(said in warning for warning in found.warnings)


def test_other_engines_and_kinds_of_models_plan_too() -> None:
    for model, budget in (
        ("google/gemma-3-4b-it", 16),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", 24),
        ("openai/gpt-oss-20b", 20),
    ):
        spec = load_model(model, offline=True)
        for engine in all_engines():
            request = Request(spec, Workload(8192), engine, budget * GB, find_gpu("H200"))
            if engine.serves and engine.cannot_run(spec, request.hardware) is not None:
                assert engine.name == "sglang"
                with pytest.raises(BadInput, match="windows"):
                    recommend(request)
                continue
            assert recommend(request).recommended.memory.total_high <= budget * GB


@pytest.mark.parametrize(
    "change", [{"objective": "speed"}, {"budget": 0}], ids=["objective", "budget"]
)
def test_a_question_that_means_nothing_is_bad_input(
    qwen: Request, change: dict[str, object]
) -> None:
    with pytest.raises(BadInput):
        replace(qwen, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [19.4, 19.8, 20.5, 22])
def test_packed_experts_prefill_in_chunks_that_nobody_waits_for(budget: float) -> None:
    """Qwen3-30B-A3B at 4 bits: short chunks read all experts again and again."""
    spec = load_model("Qwen/Qwen3-30B-A3B", offline=True)
    plan = recommend(Request(spec, Workload(32_768), KVPARETO, int(budget * GB), find_gpu("4090")))
    best = plan.recommended
    assert best.latency is not None
    assert best.latency.ttft_s < 30


OUTDONE = PointArrays(
    memory=np.array([100, 90, 90, 100, 80]),
    low=np.array([0.95, 0.95, 0.94, 0.95, 0.99]),
    retention=np.full(5, 0.97),
    ttft=np.array([1.0, 0.9, 0.9, 1.0, 1.1]),
    tpot=np.ones(5),
    time=np.ones(5),
    complexity=np.array([2, 4, 4, 4, 4]),
    allowed=np.ones(5, dtype=bool),
    usual=np.ones(5, dtype=bool),
)


def test_a_point_that_is_better_in_every_number_is_named() -> None:
    assert outdone_by(OUTDONE, 0, range(5)) == [1]
    slower = replace(OUTDONE, tpot=np.array([1.0, 1.01, 1, 1, 1]))
    assert outdone_by(slower, 0, range(5)) == []


@pytest.mark.parametrize(
    ("model", "budget"),
    [("Qwen/Qwen3-30B-A3B", 60), ("Qwen/Qwen3-8B", 12), ("google/gemma-3-12b-it", 16)],
)
def test_the_text_says_why_a_better_point_of_the_table_is_not_recommended(
    model: str, budget: int
) -> None:
    plan = recommend(
        Request(load_model(model, offline=True), Workload(16_384), KVPARETO, budget * GB)
    )
    best = plan.recommended
    better = [
        point
        for point in plan.shown
        if point.memory.total_high < best.memory.total_high
        and point.accuracy.low >= best.accuracy.low
        and plan.relative_latency[str(point.config)][0] <= 1
    ]
    assert bool(better) <= any("passed over" in reason for reason in plan.reasons)
