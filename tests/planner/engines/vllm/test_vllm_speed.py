"""vLLM's schedule by hand, and its seconds held to runs of the engine (profiles/vllm)."""

import json
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from kvpareto.calibration.vllm.fit_speed import (
    KNOWN,
    errors,
    fit,
    intervals,
    leave_out,
)
from kvpareto.calibration.vllm.timed_bursts import read_runs
from kvpareto.planner.engines.vllm.schedule import schedule
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.engines.vllm.speed import ServingSpeed, serving_speed
from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.profiles import read

LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
RUNS = read_runs()


def _settings(*sizes: Any, **more: Any) -> ServeSettings:
    return ServeSettings(*(sizes or (131072,)), **more)


def _ask(users: int = 1, prompt: int = 4096, output: int = 65, **more: Any) -> ServingSpeed:
    at_once = more.pop("at_once", None)
    settings = more.pop("settings", None) or _settings(**more)
    return serving_speed(LLAMA, settings, find_gpu("H200"), users, prompt, output, at_once)


def test_schedule_of_three_prompts_by_hand() -> None:
    """Chunks of 100: prompts of 60 end in steps 0, 1 and 2, each then decodes two tokens more."""
    plan = schedule(3, 60, 3, 100, 3)
    # step 1 holds one decoding token, 20 left of prompt 1, and 60 of prompt 2, all of it
    assert plan.piece_step.tolist() == [0, 0, 1, 1]
    assert plan.piece_start.tolist() == [0, 0, 40, 0]
    assert plan.piece_rows.tolist() == [60, 40, 20, 60]
    assert plan.first.tolist() == [0, 1, 1]
    assert plan.count.tolist() == [1, 1, 1, 1]
    assert plan.decoding.tolist() == [0, 1, 3, 2]
    assert plan.last.tolist() == [2, 3, 3]


@pytest.mark.parametrize(("users", "at_once"), [(1, 1), (7, 7), (7, 2), (40, 16)])
def test_every_token_is_in_the_schedule(users: int, at_once: int) -> None:
    plan = schedule(users, 1000, 9, 512, at_once)
    steps = plan.order
    assert plan.prompt_rows[steps].sum() == users * 1000
    assert (plan.count * plan.decoding)[steps].sum() == users * 8
    assert plan.finished[steps].sum() == users
    assert (plan.prompt_rows + plan.decoding).max() <= 512
    assert plan.decoding.max() <= at_once


def test_steps_that_are_alike_are_one() -> None:
    plan = schedule(4, 100, 4096, 8192, 4)
    assert plan.count.tolist() == [1, 4095]
    assert plan.length.tolist()[1] == pytest.approx(101 + 4094 / 2)


def test_seconds_of_every_run() -> None:
    """What is shipped, against the runs it was fitted to: six models, one card and two."""
    rates = json.loads(read("vllm/speed.json"))["rates"]
    found = errors(RUNS, rates)
    for what in ("ttft", "tpot", "total"):
        offs = [abs(off) for (_, kind), group in found.items() if kind == what for off in group]
        assert median(offs) <= 0.08
        assert max(offs) <= 0.5  # prompts of 512 tokens, which the host holds up
    assert {seen.served.cards for seen in RUNS} == {1, 2}
    assert len({seen.shape for seen in RUNS}) == 6


@pytest.mark.slow
def test_a_model_left_out_is_within_the_bar() -> None:
    """Of TTFT, TPOT and the whole time, whose formats other models were run with too. First tokens
    of DeepSeek-V2-Lite miss it: prompts of 64 users take twice what is said, and why is unknown."""
    missed = {("dsv2lite", "ttft"): 0.2}
    counted = 0
    for shape in {seen.shape for seen in RUNS}:
        found, *_ = leave_out(RUNS, shape)
        for (_, what), group in found.items():
            assert median(map(abs, group)) <= missed.get((shape, what), 0.12), (shape, what)
            counted += len(group)
    assert counted == 199


def test_the_fit_finds_what_made_the_times() -> None:
    """Times of a made-up engine whose memory is slower and whose host takes longer."""
    rates = dict(json.loads(read("vllm/speed.json"))["rates"])
    true = rates | {"weights.bf16": 0.7, "layer": 5e-5, "matmul.bf16": 0.55}
    some = [seen for seen in RUNS if seen.shape == "llama8" and seen.row == "m-l8"]
    made = [replace(seen, seconds=seen.predicted(true)) for seen in some]
    found = errors(made, fit(made))
    assert max(abs(off) for group in found.values() for off in group) <= 0.03


def test_more_work_takes_longer() -> None:
    alone, many = _ask(), _ask(users=16)
    assert many.ttft[0] > alone.ttft[0] == alone.ttft_alone[0] == many.ttft_alone[0]
    assert many.tpot[0] > alone.tpot[0]
    assert many.tokens_per_second[0] > alone.tokens_per_second[0]
    assert _ask(prompt=32768).ttft[0] > alone.ttft[0]
    assert _ask(quantization="awq").tpot[0] < alone.tpot[0]
    assert _ask(tensor_parallel=2).tpot[0] < alone.tpot[0]
    assert _ask(users=16, at_once=4).tokens_per_second[0] < many.tokens_per_second[0]
    two = _ask(users=32, data_parallel=2)
    assert two.tokens_per_second[0] == pytest.approx(2 * many.tokens_per_second[0])
    staged = _ask(users=16, pipeline_parallel=2)
    assert staged.tokens_per_second[0] > many.tokens_per_second[0]
    assert staged.kind == "derived"


A100 = find_gpu("A100 SXM4 80GB")


def test_intervals_hold_their_number_and_widen_on_cards_that_were_not_run() -> None:
    here = _ask()
    other = serving_speed(LLAMA, ServeSettings(8192), A100, 1, 4096, 65)
    for speed in (here, other):
        for ends in (speed.ttft, speed.ttft_alone, speed.tpot, speed.tokens_per_second):
            assert ends[1] < ends[0] < ends[2]
    near = serving_speed(LLAMA, ServeSettings(8192), find_gpu("H100 SXM5"), 1, 4096, 65)
    once = _ask(kv_cache_dtype="int8_per_token_head")  # one model's runs
    untried = _ask(quantization="fp8")
    widths = [s.ttft[2] / s.ttft[1] for s in (here, near, once, untried, other)]
    assert widths[0] < widths[1] < widths[4]
    # int8 caches were up to 78 % off while no run of them was in the fit: so may others be
    assert widths[2] == pytest.approx(6.252 / 0.6)
    assert widths[3] == pytest.approx(widths[2])
    fp8_there = serving_speed(LLAMA, ServeSettings(8192, quantization="fp8"), A100, 1, 4096, 65)
    assert fp8_there.ttft[2] / fp8_there.ttft[1] > widths[3]
    kinds = [s.kind for s in (here, near, once, untried, other)]
    assert kinds == ["fitted", "derived", "fitted", "derived", "derived"]


def test_caches_with_scales_a_head_are_slow_on_hopper() -> None:
    """As measured: Triton reads them at an eighth of the card's bandwidth and less, and computes a
    prompt's attention at 3 % of its rate."""
    plain = _ask(prompt=32000)
    for dtype, times in (("int8_per_token_head", 3), ("int4_per_token_head", 3)):
        slow = _ask(prompt=32000, kv_cache_dtype=dtype)
        assert slow.ttft[0] > times * plain.ttft[0]
        assert slow.tpot[0] > plain.tpot[0]


def test_what_is_not_planned_is_named() -> None:
    with pytest.raises(BadInput, match="'w3' is not planned"):
        _ask(quantization="w3")
    with pytest.raises(BadInput, match="at least 1"):
        _ask(users=0)


@pytest.mark.parametrize(
    "name",
    [
        "openai/gpt-oss-20b",
        "deepseek-ai/DeepSeek-V2-Lite-Chat",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "google/gemma-3-4b-it",
    ],
)
def test_every_kind_of_layer_has_a_time(name: str) -> None:
    spec = load_model(name, offline=True)
    speed = serving_speed(spec, ServeSettings(32768), find_gpu("H200"), 4, 8192, 64)
    assert 0.01 < speed.ttft[0] < 2
    assert 0.001 < speed.tpot[0] < 0.5


def test_gemma_4_is_not_timed_as_if_flash_attention_3_read_it() -> None:
    """0.26.0 takes FlashAttention 4 or Triton for it, which no run was timed with."""
    settings = ServeSettings(8192, max_num_seqs=8)
    kinds = [
        serving_speed(load_model(name, offline=True), settings, find_gpu("H200"), 4, 4096, 64).kind
        for name in ("google/gemma-3-27b-it", "google/gemma-4-31b-it")
    ]
    assert kinds == ["fitted", "derived"]


def test_each_class_is_as_wide_as_its_errors_while_it_was_left_out() -> None:
    """Quantiles of measured / predicted, further out the fewer there are; untried formats are the
    hull of what one model or two were run with."""
    classes = {
        KNOWN: [0.01 * (-1) ** i for i in range(100)],
        "cache.int4": [-0.5] * 20,
        "latent": [0.5, -0.4],
    }
    found = intervals(classes)
    assert found[KNOWN] == [0.85, 1.2]
    assert found["cache.int4"] == [0.6, pytest.approx(2**1.2, abs=1e-3)]
    assert found["latent"][0] < 1 / 1.5
    assert found["latent"][1] > 1 / 0.6
    assert found["untried"] == [found["latent"][0], max(found["latent"][1], 2.297)]


def test_a_latent_model_has_the_interval_of_latent_models() -> None:
    spec = load_model("deepseek-ai/DeepSeek-V2-Lite-Chat", offline=True)
    speed = serving_speed(spec, ServeSettings(8192), find_gpu("H200"), 1, 4096, 65)
    assert speed.kind == "fitted"
    assert speed.ttft[2] / speed.ttft[1] == pytest.approx(1.7 / 0.6)
