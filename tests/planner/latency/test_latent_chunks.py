"""Chunks over latents, rows of 16-bit experts, and layers of several streams in the roofline."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency import roofline_experts as experts
from kvpareto.planner.latency import roofline_latents as latents
from kvpareto.planner.latency.card import Card
from kvpareto.planner.latency.efficiency import Coefficients, shipped
from kvpareto.planner.latency.job import ConfigurationAxes, LatencyJob, job_of
from kvpareto.planner.latency.roofline import seconds
from kvpareto.planner.latency.roofline_attention import attention_host, chunk_attention
from kvpareto.planner.latency.work import work_of
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload

H200 = find_gpu("H200")
OURS = shipped(KVPARETO)
LATENT = load_model("deepseek-ai/DeepSeek-V2-Lite-Chat", offline=True)
LAYERS, HEADS = 27, 16
PAIR = 2 * HEADS * (128 + 64 + 128)  # operations of expanded keys and values


def job(text: str, context: int, batch: int = 1, spec: ModelSpec = LATENT) -> LatencyJob:
    config, workload = Configuration.parse(text), Workload(context, 16, batch=batch)
    size = kv_bytes(spec, config, workload, KVPARETO).total
    return job_of(spec, workload, ConfigurationAxes.of(config, size))


def attention(one: LatencyJob, length: int, c: Coefficients = OURS) -> tuple[float, float]:
    """Seconds of a chunk: to itself, and to each token before it."""
    own, past = chunk_attention(one, float(length), Card(H200, c))
    return float(np.asarray(own).item()), float(np.asarray(past).item())


@pytest.mark.parametrize(("batch", "rounds"), [(2, 8), (4, 16), (8, 32)])
def test_several_sequences_go_through_latents_round_by_round(batch: int, rounds: int) -> None:
    """512 tokens of 16 heads are 512 programs of 16 rows; 132 run at once."""
    text = "w4a16-k16v16+pc512"
    own, past = attention(job(text, 8192, batch), 512)
    assert past == pytest.approx(LAYERS * rounds * OURS.latent_tile / 32)
    assert own == pytest.approx(past * 256)
    packed = attention(job("w4a16-k4v4-g64+pc512", 8192, batch), 512)
    assert packed == pytest.approx((own * OURS.latent_packed, past * OURS.latent_packed))


def test_lengths_without_a_plan_go_through_torchs_attention() -> None:
    """1,000 queries have no plan, 768 one for every fourth length of the past, 1,024 for all."""
    one = job("w4a16-k16v16+pc1024", 8192)
    slow = LAYERS * PAIR / (latents.UNPLANNED * H200.fp16_flops)
    expanded = LAYERS * latents.EXPANDING * 2 * HEADS * 320 / (H200.bandwidth * OURS.stream)
    own, _ = attention(one, 1000)
    assert own == pytest.approx(1000 * (slow * 500 + expanded))
    planned, half, none = (attention(one, n)[1] / n for n in (1024, 768, 1000))
    per_chunk = attention(one, 1024)[1] - 1024 * LAYERS * (PAIR + OURS.softmax * HEADS) / (
        OURS.attention_packed * H200.fp16_flops
    )
    fast, mid, whole = (x - per_chunk / n for x, n in ((planned, 1024), (half, 768), (none, 1000)))
    assert whole == pytest.approx(slow, rel=1e-3)
    assert mid == pytest.approx((fast + 3 * slow) / 4, rel=1e-3)


@pytest.mark.parametrize(
    ("context", "pieces"), [(8192, (1 + 7 / 8, 0.0)), (65_536, (1.5, 1 / 8192))]
)
def test_the_host_launches_pieces(context: int, pieces: tuple[float, float]) -> None:
    found = attention_host(job("w4a16-k4v4-g64+pc1024", context), 1024.0, Card(H200, OURS))
    expected = tuple(x * LAYERS * OURS.launch_latent for x in pieces)
    assert tuple(float(np.asarray(x).item()) for x in found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("length", "segment"), [(64, 16_384), (512, 16_384), (513, 8192), (4096, 8192)]
)
def test_the_host_launches_segments(length: int, segment: int) -> None:
    """Of keys and values: of 8,192 tokens, twice as long for up to 512 queries; a sequence and a
    layer at a time."""
    plain = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
    one = job("w4a16-k4v4-g64+pc1024", 65_536, 2, plain)
    found = attention_host(one, float(length), Card(H200, OURS))
    first, each = (float(np.asarray(x).item()) / (2 * 32 * OURS.launch_segment) for x in found)
    assert first == pytest.approx(1.25)
    assert each == pytest.approx(1 / segment)


def test_packed_experts_are_launched_each_time() -> None:
    """2,048 tokens of 6 of 64 experts are cut in two, 1,024 are not."""
    spec, host = LATENT, replace(OURS, launch_prefill=1.0)
    dear = replace(host, launch_prefill=2.0)

    def launches(chunk: int) -> float:
        one = job(f"w4a16-k4v4-g64+pc{chunk}", chunk)
        return float((seconds(one, H200, dear).ttft - seconds(one, H200, host).ttft).item())

    assert launches(2048) - launches(1024) == pytest.approx(
        0.5 * work_of(spec).packed_routed_launches
    )


@pytest.mark.parametrize(("rows", "taken"), [(16, 128), (64, 128), (128, 192), (512, 576)])
def test_tiles_of_16_bit_experts_are_half_empty_in_the_last(rows: int, taken: int) -> None:
    one = SimpleNamespace(expert=64 * 1000, expert_share=4 / 64, weight=2.0)
    card = Card(H200, OURS)
    found = float(np.asarray(experts.chunk_products(one, rows * 16, card)))
    assert found == pytest.approx(2 * 64 * 1000 * taken / (card.matmul * OURS.grouped), rel=1e-3)


def test_streams_are_counted_with_their_norms_fused() -> None:
    """Beside 4 norms, 2 adds, attention, its norms and turning, and the gated FFN's four: thirteen
    products and norms, 24 of torch's small operations."""
    content = {
        "model_type": "gemma3n_text", "hidden_size": 2048, "num_hidden_layers": 30,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
        "intermediate_size": 8192, "sliding_window": 512, "num_kv_shared_layers": 10,
        "vocab_size": 262144, "max_position_embeddings": 32768,
    }  # fmt: skip
    work = work_of(read_model(content, "gemma-3n"))
    plain = 4 + 2 + 7 + 2 + 10 + 4
    assert work.fused_launches == 30 * (plain + 13 + 24)
    assert work.host_launches == pytest.approx(30 * (4 + 0.4 + 7 + 2 + 2 + 4 + 13 + 4.8))
