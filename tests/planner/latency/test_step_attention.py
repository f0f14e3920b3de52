"""What a step costs beside its bytes: rounds of attention's blocks, parts put together, copies."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.card import Card
from kvpareto.planner.latency.efficiency import Coefficients, shipped
from kvpareto.planner.latency.job import ConfigurationAxes, LatencyJob, job_of
from kvpareto.planner.latency.roofline import seconds
from kvpareto.planner.latency.roofline_attention import chunk_attention, decode_cache
from kvpareto.planner.latency.step_cuts import cuts, further_rounds
from kvpareto.planner.load_model import load_model
from kvpareto.planner.workload import Workload

H200 = find_gpu("H200")
OURS = shipped(KVPARETO)
LLAMA, GEMMA, QWEN3 = "meta-llama/Llama-3.1-8B-Instruct", "google/gemma-3-4b-it", "Qwen/Qwen3-8B"
QWEN_3B, QWEN_7B = "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct"


def job(model: str, context: int, batch: int = 1, config: str = "w16a16-k16v16") -> LatencyJob:
    axes = ConfigurationAxes.of(Configuration.parse(config), 10**9)  # whatever the model
    return job_of(load_model(model, offline=True), Workload(context, 64, batch=batch), axes)


def read(job: LatencyJob, coefficients: Coefficients = OURS) -> float:
    return float(np.asarray(decode_cache(job, Card(H200, coefficients))).item())


def step(job: LatencyJob, coefficients: Coefficients = OURS) -> float:
    return float(seconds(job, H200, coefficients).tpot.item())


@pytest.mark.parametrize(
    ("batch", "whole", "blocks", "further"),
    [
        (1, 1, 128, 0),  # 8 heads in 16 parts: 128 blocks of 132 multiprocessors
        (16, 1, 128, 0),  # 128 heads
        (12, 1, 384, 2),  # 96 heads in 4 parts: three rounds
        (6, 1, 384, 2),  # 48 heads in 8 parts
        (24, 1, 384, 1),  # 192 heads in 2 parts, of which two lie on a multiprocessor
        (64, 1, 512, 1),
        (64, 0, 512, 3),  # before, one did
    ],
)
def test_a_steps_attention_takes_rounds_of_the_card(
    batch: int, whole: int, blocks: int, further: int
) -> None:
    heads, each = cuts(8, batch, 8000)
    assert (heads[0].item(), each[0].item()) == (8 * batch, blocks)
    assert further_rounds(heads, each, float(whole))[0] == further


@pytest.mark.parametrize(("batch", "fuller"), [(6, 7), (12, 14)])
def test_a_step_is_no_longer_than_one_of_more_sequences_that_are_cut_better(
    batch: int, fuller: int
) -> None:
    alone, least = (job(LLAMA, 4000, of, "w4a16-k4v4") for of in (batch, fuller))
    least = replace(least, kv_bytes=least.kv_bytes * fuller / batch)
    (kind,) = alone.kinds
    whole = replace(alone, kinds=(replace(kind, heads=kind.heads[:1], blocks=kind.blocks[:1]),))
    assert read(whole) > read(least)
    assert read(alone) == pytest.approx(read(least))


@pytest.mark.parametrize(("batch", "further"), [(16, 0), (32, 0), (64, 1)])
def test_rounds_that_no_larger_batch_is_spared_are_counted(batch: int, further: int) -> None:
    of = job(LLAMA, 4000, batch)
    rounds = read(of) - read(of, replace(OURS, round=0.0))
    assert rounds == pytest.approx(32 * further * OURS.round)


@pytest.mark.parametrize(
    ("model", "context", "batch", "merges"),
    [
        (LLAMA, 32_000, 1, 32),  # 8 heads in 16 parts each
        (LLAMA, 32_000, 16, 0),  # 128 heads, each of one block
        (QWEN_3B, 32_000, 1, 36 * 5),  # 2 heads in 66
        (QWEN_7B, 32_000, 1, 28 * 3),  # 4 heads in 33
        (QWEN_3B, 1_000, 1, 36 * 2),  # 17 parts of 64 tokens
        (GEMMA, 32_000, 1, 29 * 1 + 5 * 3),  # windows of 1,024 tokens, and 4 heads in 33
    ],
)
def test_the_last_block_of_a_head_merges_sixteen_parts_at_once(
    model: str, context: int, batch: int, merges: int
) -> None:
    of = job(model, context, batch)
    merging = read(of) - read(of, replace(OURS, merge=0.0))
    assert merging == pytest.approx(merges * OURS.merge)


def test_merges_took_longer_with_bank_conflicts() -> None:
    of = job(QWEN_3B, 32_000)
    before = read(replace(of, conflict_free_merges=0.0)) - read(of)
    assert before == pytest.approx(36 * 5 * OURS.merge * (1 / OURS.conflicts - 1))


@pytest.mark.parametrize(
    ("model", "bits", "scores"),
    [
        (QWEN_3B, 4, 36 * 16 * 131_064),  # 8 query heads to a KV head of 1 kB in 16 bits a token
        (LLAMA, 4, 0),  # 4
        (QWEN_3B, 16, 0),
    ],
)
def test_many_query_heads_to_a_kv_head_take_longer_than_its_bytes(
    model: str, bits: int, scores: int
) -> None:
    """What is held to the scores is the read of packed keys and values."""
    of = job(model, 131_000, config=f"w4a16-k{bits}v{bits}")
    held = sum(k.layers * k.cache_elements for k in of.kinds) * of.tokens * bits / 8
    of = replace(of, kv_bytes=held)
    without = read(of, replace(OURS, score=0.0))
    rate = {4: OURS.packed_4, 16: 1.0}[bits] * OURS.stream * H200.bandwidth
    bytes_s = float(np.asarray(held).item()) / rate
    assert read(of) - without == pytest.approx(
        max(0.0, scores * OURS.score - bytes_s) * (scores > 0)
    )


@pytest.mark.parametrize(("chunk", "held"), [("", 32_064), ("+pc512", 1024 + 512)])
def test_what_slides_is_read_within_its_window(chunk: str, held: int) -> None:
    """Gemma 3 4B: five layers hold all tokens, 29 a window of 1,024 with a chunk's before it."""
    of = job(GEMMA, 32_000, config=f"w4a16-k4v4{chunk}")
    assert of.seen == pytest.approx((5 * 32_064 + 29 * 1024) / (5 * 32_064 + 29 * held))
    apart = replace(OURS, score=0.0)
    whole, half = read(of, apart), read(replace(of, kv_bytes=5e8), apart)
    rate = OURS.packed_4 * OURS.stream * H200.bandwidth
    assert whole - half == pytest.approx(of.seen * 5e8 / rate)


def test_a_captured_step_does_not_wait_for_the_host() -> None:
    of = job(QWEN_3B, 4000, config="w4a16-k4v4-g64")
    assert step(of, replace(OURS, host_step=1.0)) == step(of)


def test_normed_queries_and_keys_of_several_sequences_were_copied() -> None:
    def copies(model: str, batch: int, copied: float = 1.0) -> float:
        of = replace(job(model, 4000, batch), copied_heads=copied)
        return step(of) - step(of, replace(OURS, card_copy=0.0))

    assert copies(QWEN3, 1) == copies(LLAMA, 4) == copies(QWEN3, 2, copied=0.0) == 0
    assert copies(QWEN3, 2) == pytest.approx(36 * OURS.card_copy)
    assert job(QWEN3, 4000, 2).copied_heads == 0


def test_a_card_that_is_idle_is_filled_by_more_tiles() -> None:
    """Gemma 2's scores are capped, so the general kernel attends: 8 KV heads of two query heads, in
    tiles of 64 queries. Twice the tokens are four times the pairs, on twice the programs."""
    of, card = job("google/gemma-2-9b-it", 400), Card(H200, OURS)
    one, two = (chunk_attention(of, tokens, card)[0].item() for tokens in (32.0, 64.0))
    assert two == pytest.approx(2 * one)
