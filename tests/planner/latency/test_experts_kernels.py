"""Packed experts of chunks as a card timed them by themselves, beside what the roofline says."""

import json
from pathlib import Path
from statistics import geometric_mean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency import roofline_experts as experts
from kvpareto.planner.latency.card import Card
from kvpareto.planner.latency.efficiency import shipped
from kvpareto.planner.latency.kernel_launches import FUSED_FFN_BYTES, ROUTED_BYTES
from kvpareto.planner.latency.work import work_of
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.activation.workspace import tokens_at_once

ROWS = Path(__file__).parents[3] / "benchmarks" / "results" / "experts.jsonl"
SHAPES = {  # as benchmarks/bench_experts.py: experts, of a token, hidden size, width
    "DeepSeek-V2-Lite": (64, 6, 2048, 1408),
    "GLM-4.7-Flash": (64, 4, 2048, 1536),
    "Qwen3-30B-A3B": (128, 8, 2048, 768),
    "Kimi-Linear-48B-A3B": (256, 8, 2304, 1024),
}
STORED = {4: 0.53, 8: 1.02, 16: 2.0}  # bytes of a weight, scales included


def latest() -> list[dict[str, Any]]:
    """The newest row of each chunk of 1,024 tokens or more."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    found = {(r["shape"], r["bits"], r["tokens"]): r for r in sorted(rows, key=lambda r: r["time"])}
    return [row for (_, _, tokens), row in found.items() if tokens in (1024, 4096, 16384)]


def job(shape: str, bits: int) -> Any:
    count, k, hidden, width = SHAPES[shape]
    return SimpleNamespace(
        expert=count * 3 * hidden * width,
        expert_share=k / count,
        weight=STORED[bits],
    )


def predicted(row: dict[str, Any]) -> float:
    """Seconds of a layer's experts: products, weights read, and what the operations around move."""
    one, tokens = job(row["shape"], row["bits"]), row["tokens"]
    _, k, hidden, width = SHAPES[row["shape"]]
    card = Card(find_gpu("H200"), shipped(KVPARETO))
    moved = tokens * k * (ROUTED_BYTES * hidden + FUSED_FFN_BYTES * width)
    read = experts.chunk_bytes(one, tokens) + moved
    return float(experts.chunk_products(one, tokens, card) + read / card.stream)


def test_chunks_of_packed_experts_take_what_was_measured() -> None:
    rows = latest()
    assert len(rows) == 24
    ratios = [predicted(row) / (1e-6 * row["grouped_us"]) for row in rows]
    assert geometric_mean(ratios) == pytest.approx(1, abs=0.04)
    assert all(0.7 < ratio < 1.4 for ratio in ratios)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_chunk_is_cut_as_the_runtime_cuts_it(shape: str) -> None:
    count, k, *_ = SHAPES[shape]
    for tokens in (1, 500, 1024, 1365, 1366, 2048, 2049, 4096, 4097, 16_384):
        cuts = -(-tokens // tokens_at_once(tokens, k, count))
        assert np.asarray(experts.times(job(shape, 4), tokens)) == cuts
        sixteen = SimpleNamespace(**(vars(job(shape, 4)) | {"weight": 2.0}))
        assert np.asarray(experts.times(sixteen, tokens)) == 1


def test_16_bit_experts_wait_for_torchs_operations_on_their_rows() -> None:
    work = work_of(load_model("Qwen/Qwen3-30B-A3B", offline=True))
    assert work.routed_bytes == 48 * 8 * (14 * 2048 + 12 * 768)
    assert work_of(load_model("Qwen/Qwen3-8B", offline=True)).routed_bytes == 0
    card = Card(find_gpu("H200"), shipped(KVPARETO))

    def sent(bits: int) -> float:
        one = SimpleNamespace(weight=STORED[bits], routed_bytes=work.routed_bytes)
        return float(np.asarray(experts.sent(one, 4096, card)))

    assert sent(4) == sent(8) == 0
    bytes_beyond = (card.c.routed_moves - 1) * 4096 * work.routed_bytes
    assert sent(16) == pytest.approx(bytes_beyond / card.stream)


def test_steps_of_more_than_64_pairs_go_through_the_chunks_kernel() -> None:
    """128 experts, 8 of a token: 8 sequences have 64 pairs, 16 one tile for each expert reached."""
    card, weights = Card(find_gpu("H200"), shipped(KVPARETO)), 128 * 1000

    def step(batch: float, bits: int) -> float:
        one = SimpleNamespace(
            expert=weights, expert_share=8 / 128, top_k=8, batch=batch, weight=STORED[bits]
        )
        return float(np.asarray(experts.step(one, card)))

    def reached(batch: int) -> float:
        return float(1 - (1 - 8 / 128) ** batch)

    few = weights * reached(8) * STORED[4] / (card.c.weights_4 * card.stream)
    assert step(8, 4) == pytest.approx(few)
    rows = 1 + reached(16) * experts.STEP_ROWS
    many = 2 * weights * rows / (card.matmul * card.c.grouped_packed)
    assert step(16, 4) == pytest.approx(many)
    assert many > 2 * few
    assert step(16, 16) == pytest.approx(step(8, 16) * reached(16) / reached(8))
