"""The roofline: hand-derived work, closed forms against plain sums, and measured rows."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.layers.layer_cases import SETS, cases
from kvpareto.calibration.evidence.latency_tables import (
    LatencyRow,
    architectures,
    left_out_tables,
    runtime_runs,
    whole_models,
)
from kvpareto.calibration.evidence.marked_tables import shown_table
from kvpareto.calibration.fit.hardware.engine_runs import shipped_runs
from kvpareto.calibration.fit.hardware.latency import COSTS, FROM_KERNELS, RATES, fit
from kvpareto.planner.engine import Engine
from kvpareto.planner.engines import all_engines
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.engines.transformers_eager import TRANSFORMERS_EAGER
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency import roofline_experts
from kvpareto.planner.latency.efficiency import before_runs, shipped
from kvpareto.planner.latency.interval import profile_of
from kvpareto.planner.latency.job import ConfigurationAxes, job_of
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.latency.roofline import sum_of_longer, sweep
from kvpareto.planner.latency.work import work_of
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.activation.kvpareto_engine import FUSED_LAYERS
from kvpareto.planner.memory.estimate_space import memory_table
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.enumerate import enumerate_space, protection_presets
from kvpareto.planner.workload import Workload

H200 = find_gpu("H200")
DOCS = Path(__file__).parents[3] / "docs"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture(scope="module")
def llama() -> ModelSpec:
    return load_model(LLAMA, offline=True)


@pytest.fixture(scope="module")
def measured() -> list[LatencyRow]:
    return list(whole_models())


@pytest.fixture(scope="module")
def unseen() -> list[LatencyRow]:
    return list(architectures())


def test_work_of_llama_8b_by_hand(llama: ModelSpec) -> None:
    work = work_of(llama)
    assert work.layers == 32
    # q, o: 4096 x 4096; k, v: 4096 x 1024; gate, up, down: 4096 x 14336
    assert work.linear == 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert work.expert == 0
    assert work.head == work.embedding == 128_256 * 4096
    (attention,) = work.attention
    assert attention.flops_per_pair == 4 * 32 * 128  # q.k and p.v, a multiply and an add each
    assert attention.cache_elements == 2 * 8 * 128
    assert attention.reach is None


def test_experts_are_streamed_as_far_as_tokens_reach_them() -> None:
    spec = load_model("Qwen/Qwen3-30B-A3B", offline=True)
    work = work_of(spec)
    assert work.expert_share == 8 / 128
    assert work.expert == 48 * 128 * 3 * 2048 * 768
    job = job_of(spec, Workload(1024, 0), ConfigurationAxes.of(Configuration(), 0))
    assert roofline_experts.reached(job, 1.0) == pytest.approx(8 / 128)
    # two tokens: 1 - (15/16)^2; a long chunk reaches all
    assert roofline_experts.reached(job, 2.0) == pytest.approx(31 / 256)
    assert roofline_experts.reached(job, 4096.0) == pytest.approx(1.0)


@pytest.mark.parametrize("host", [0.0, 0.5, 3.7, 100.0], ids=lambda h: f"host{h}")
@pytest.mark.parametrize("climb", [0.0, 0.01, 2.0], ids=lambda c: f"climb{c}")
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.3], ids=lambda s: f"slope{s}")
@pytest.mark.parametrize("count", [1, 2, 7, 100], ids=lambda c: f"{c}chunks")
def test_closed_sum_over_chunks_is_the_plain_sum(
    host: float, climb: float, slope: float, count: int
) -> None:
    plain = sum(max(host + climb * j, 1.0 + slope * j) for j in range(count))
    lines = host, climb, np.array([1.0]), np.array([slope])
    assert sum_of_longer(*lines, np.array([float(count)])) == pytest.approx([plain])


def test_without_a_gpu_there_are_no_seconds(llama: ModelSpec) -> None:
    assert predict(llama, Configuration(), Workload(4096), KVPARETO, None) is None


def test_the_low_end_is_what_the_datasheet_allows(llama: ModelSpec) -> None:
    found = predict(llama, Configuration(), Workload(131_072, 0), KVPARETO, H200)
    assert found is not None
    # Decode: all weights but the embedding, and 131,072 bytes of KV a token, at 4.8 TB/s.
    weights = 2 * (6_979_321_856 + 525_336_576)
    assert found.tpot_low >= (weights + 131_072 * 131_072) / 4.8e12
    # Prefill: two operations a weight and token, 16,384 a pair of tokens and layer, 989.4 TFLOP/s.
    flops = 2 * 6_979_321_856 * 131_072 + 32 * 16_384 * 131_072**2 / 2
    assert found.ttft_low >= flops / 989.4e12
    assert found.ttft_low < found.ttft_s < found.ttft_high
    assert found.tpot_low < found.tpot_s < found.tpot_high


# An engine that places layers itself has a speed of its own (planner/engines/llama_cpp/speed.py).
@pytest.mark.parametrize("engine", [e for e in all_engines() if not e.places], ids=str)
@pytest.mark.parametrize("gpu", ["H200", "4090", "M3 Max 128GB"])
def test_longer_contexts_and_smaller_chunks_never_take_less_time(
    llama: ModelSpec, engine: Engine, gpu: str
) -> None:
    def ttft(context: int, chunk: int | None) -> float:
        config = Configuration(weight_bits=4, chunk=chunk)
        found = predict(llama, config, Workload(context, 0), engine, find_gpu(gpu))
        assert found is not None
        return found.ttft_s

    for chunk in (None, 4096, 256):
        times = [ttft(context, chunk) for context in (512, 4096, 10_240, 65_536, 131_072)]
        assert times == sorted(times)
    # Eager attention is the exception: it makes the scores of later tokens in its own chunk too.
    times = [ttft(32_768, chunk) for chunk in (64, 256, 1024, 4096)]
    assert engine is TRANSFORMERS_EAGER or times == sorted(times, reverse=True)


def test_fewer_bits_of_cache_are_read_faster_by_our_runtime(llama: ModelSpec) -> None:
    def tpot(k: int, v: int) -> float:
        found = predict(llama, Configuration(4, k, v), Workload(131_072, 0), KVPARETO, H200)
        assert found is not None
        return found.tpot_s

    times = [tpot(16, 16), tpot(8, 8), tpot(4, 4), tpot(2, 2)]
    assert times == sorted(times, reverse=True)
    assert times[0] > 1.3 * times[2]


def test_a_sweep_is_every_prediction_at_once(llama: ModelSpec) -> None:
    engine, workload = KVPARETO, Workload(20_000, 100, batch=2)
    space = enumerate_space(llama, workload, engine, protection_presets(llama))
    sizes = memory_table(llama, space, workload, engine, None).kv[0, :, 0]
    axes = ConfigurationAxes.of_space(space, sizes.astype(float))
    found = sweep(llama, workload, H200, profile_of(engine, H200, llama).coefficients, axes)
    whole = [np.broadcast_to(x, space.shape).ravel() for x in (found.ttft, found.tpot)]
    for index in (*range(0, len(space), 997), len(space) - 1):
        config = space.configuration(index)
        alone = predict(llama, config, workload, engine, H200)
        assert alone is not None
        assert (whole[0][index], whole[1][index]) == pytest.approx((alone.ttft_s, alone.tpot_s))


@pytest.mark.parametrize(
    ("engine", "cache", "ttft_error", "tpot_error"),
    [
        (TRANSFORMERS, "dynamic", 0.10, 0.10),
        (TRANSFORMERS, "quanto int4", 0.06, 0.03),
        (TRANSFORMERS_EAGER, "dynamic", 0.05, 0.13),
    ],
)
def test_median_error_on_measured_rows(
    measured: list[LatencyRow], engine: Engine, cache: str, ttft_error: float, tpot_error: float
) -> None:
    some = [r for r in measured if r.engine is engine and r.cache == cache]
    assert len(some) >= 4
    assert np.median([abs(1 / r.ttft_ratio - 1) for r in some]) <= ttft_error
    assert np.median([abs(1 / r.tpot_ratio - 1) for r in some]) <= tpot_error


def test_intervals_hold_nine_of_ten_measured_rows(
    measured: list[LatencyRow], unseen: list[LatencyRow]
) -> None:
    assert (len(measured), len(unseen)) == (39, 149)
    for some in (measured, unseen):
        ttft = [row.held[0] for row in some]
        tpot = [row.held[1] for row in some if row.steady]
        assert np.mean(ttft) >= 0.9
        assert np.mean(tpot) >= 0.9


def test_our_engine_keeps_to_its_interval() -> None:
    found = list(runtime_runs())
    assert len(found) == 316
    for which in (0, 1):
        assert np.mean([row.held[which] for row in found]) >= 0.95


LARGE = {
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "Qwen/Qwen3-8B",
}


def test_our_engine_on_the_runs_it_was_fitted_to() -> None:
    layers = {case.model for which in SETS for case in cases(which)}
    found = [row for row in runtime_runs() if row.model not in layers]
    assert len(found) == 249
    ttft = np.array([abs(1 / row.ttft_ratio - 1) for row in found])
    tpot = np.array([abs(1 / row.tpot_ratio - 1) for row in found])
    assert np.median(ttft) <= 0.07
    assert np.median(tpot) <= 0.04
    assert tpot.max() <= 0.16
    # The host, whose speed is the machine's of the day, decides short prompts and small chunks, and
    # families whose layers are transformers' own code.
    assert np.mean(ttft <= 0.15) >= 0.75
    assert np.mean(ttft <= 0.25) >= 0.92
    large = np.array([row.ttft_s >= 0.5 and row.model in LARGE for row in found])
    assert large.sum() >= 50
    assert ttft[large].max() <= 0.21


def figures(table: str) -> list[float]:
    """All numbers of a table, per cent as they stand: fits round a last digit by the machine."""
    return [float(text) for text in re.findall(r"(?<![\w.-])\d+(?:\.\d+)?", table)]


def test_shipped_coefficients_are_what_the_shipped_runs_say() -> None:
    rows, start = shipped_runs(), before_runs(KVPARETO)
    found = fit(rows, H200, start, FROM_KERNELS)
    assert found.by == "model"
    # The bar: a model that the fit did not see, at the median.
    assert found.held_out.median(0) <= 0.10
    assert found.held_out.median(1) <= 0.10
    tables = left_out_tables(rows, found)
    assert "nan%" not in tables["times_left_out"]  # two rows have no TTFT
    for name, table in tables.items():
        # the last lines are of fits that take longer
        shown, _, _ = shown_table(name, DOCS).partition("\n| none of these ")
        assert figures(shown) == pytest.approx(figures(table), abs=0.6), f"<!-- {name} --> is stale"
    there = [getattr(shipped(KVPARETO), name) for name in (*RATES, *COSTS)]
    again = [getattr(found.coefficients, name) for name in (*RATES, *COSTS)]
    assert again == pytest.approx(there, rel=0.05)


def test_architectures_that_nothing_was_fitted_on_are_right_within_a_half(
    unseen: list[LatencyRow],
) -> None:
    ttft = np.array([row.ttft_ratio for row in unseen])
    tpot = np.array([row.tpot_ratio for row in unseen if row.steady])
    assert np.median(np.abs(1 / ttft - 1)) <= 0.4
    assert np.median(np.abs(1 / tpot - 1)) <= 0.2


def test_what_was_not_measured_says_so_and_is_wider(llama: ModelSpec) -> None:
    workload = Workload(32_768)
    for engine in (TRANSFORMERS, TRANSFORMERS_EAGER):
        there = predict(llama, Configuration(), workload, engine, H200)
        elsewhere = predict(llama, Configuration(), workload, engine, find_gpu("4090"))
        assert there is not None
        assert elsewhere is not None
        assert "fitted on" in there.kind
        assert "roofline" in elsewhere.kind
        assert elsewhere.ttft_high / elsewhere.ttft_low > 1.5 * there.ttft_high / there.ttft_low


def test_launches_of_known_layers_by_hand() -> None:
    # Llama: two norms of 6, attention 11, RoPE 10, FFN 5, two residual adds: 40 a layer.
    assert work_of(load_model(LLAMA, offline=True)).launches == 32 * 40
    # Qwen3 norms queries and keys too.
    assert work_of(load_model("Qwen/Qwen3-8B", offline=True)).launches == 36 * 52


def test_sliding_layers_see_no_new_shape_in_every_chunk(llama: ModelSpec) -> None:
    (attention,) = {mixer for layer in llama.layers for mixer in layer.mixers}
    slides = replace(attention, window=1024)
    layers = tuple(replace(layer, mixers=(slides,)) for layer in llama.layers)
    found = [
        predict(spec, Configuration(chunk=64), Workload(8192, 0), TRANSFORMERS, H200)
        for spec in (llama, replace(llama, layers=layers))
    ]
    assert found[0] is not None
    assert found[1] is not None
    plans = 128 * profile_of(TRANSFORMERS, H200, llama).coefficients.plan
    assert found[0].ttft_s - found[1].ttft_s == pytest.approx(plans, rel=0.02)


def test_the_planner_knows_what_the_runtime_fuses() -> None:
    fused = pytest.importorskip("kvpareto.runtime.fused", reason="needs Triton")
    assert {name.replace("_", "") for name in FUSED_LAYERS} == {
        name.lower() for name in fused.PLAIN
    }
