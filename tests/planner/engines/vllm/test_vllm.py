"""vLLM's cache and start, held to starts of vLLM 0.26.0 on an H200 (profiles/vllm)."""

import json
from dataclasses import replace
from functools import cache
from statistics import median
from typing import Any

import pytest

from kvpareto.calibration.evidence.vllm_starts import LOOKED_AT, SHAPES
from kvpareto.calibration.vllm.row_server import settings_of
from kvpareto.planner.engines.vllm.block_pool import BlockPool
from kvpareto.planner.engines.vllm.layer_pages import layer_pages
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.engines.vllm.start import activation, start
from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import Attention, ModelSpec, MoEFFN, RecurrentState
from kvpareto.profiles import read

ROWS = [json.loads(line) for line in read("vllm/starts_0.26_h200.jsonl").splitlines()]
TRUE_RUNNER = [row for row in ROWS if row["triton"]]
"""Starts of an unchanged vLLM; in the others Triton was missing, and the first runner ran."""
LLAMA = ServeSettings(131072)


@cache
def _model(name: str, layers: int | None) -> ModelSpec:
    spec = _granite() if name == "granite_tiny" else load_model(SHAPES[name], offline=True)
    return replace(spec, layers=spec.layers[:layers]) if layers else spec


def _granite() -> ModelSpec:
    """Granite 4.0 H Tiny's shape: attention in the layers 5, 15, 25 and 35 of 40."""
    base = load_model("Qwen/Qwen3-30B-A3B", offline=True)
    attention = Attention(12, 4, 128, 128)
    state = RecurrentState("mamba2", 48 * 64 * 128, 3328 * 4, 48, 128, 64, 6448)
    experts = MoEFFN(64, 6, 512, 1024)
    layer = replace(base.layers[0], ffn=experts)
    layers = tuple(replace(layer, mixers=(attention if i % 10 == 5 else state,)) for i in range(40))
    return replace(
        base, model_type="granitemoehybrid", hidden=1536, vocab=100352, layers=layers, tensors=()
    )


@pytest.mark.parametrize("row", [r for r in ROWS if r["starts"]], ids=lambda r: r["id"])
def test_blocks_and_tokens_of_the_bytes_that_vllm_had(row: dict[str, Any]) -> None:
    """Exact: what vLLM makes of the bytes that its profile left."""
    pool = BlockPool.of(_model(row["shape"], row["layers"]), settings_of(row))
    assert pool.blocks(row["available"]) == row["blocks"]
    assert pool.tokens(row["available"]) == row["tokens"]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["id"])
def test_starts_or_not_with_the_bytes_that_vllm_had(row: dict[str, Any]) -> None:
    pool = BlockPool.of(_model(row["shape"], row["layers"]), settings_of(row))
    needed = pool.blocks_of(row["max_model_len"]) * pool.block_bytes
    assert (0 < needed <= row["available"]) == row["starts"]


def _off(row: dict[str, Any]) -> float:
    """Relative error of the tokens, the weights given, everything else predicted."""
    spec = _model(row["shape"], row["layers"])
    found = start(spec, find_gpu("H200"), settings_of(row), row["weights_bytes"])
    assert found.tokens.low <= row["tokens"] <= found.tokens.high
    return abs(found.tokens.expected / row["tokens"] - 1)


def test_tokens_of_rows_nobody_looked_at() -> None:
    errors = [_off(row) for row in TRUE_RUNNER if row["id"] not in LOOKED_AT]
    assert len(errors) == 4  # LOOKED_AT names the others
    assert median(errors) <= 0.01
    assert max(errors) <= 0.03


def test_tokens_of_rows_that_were_looked_at() -> None:
    errors = [_off(row) for row in TRUE_RUNNER if row["id"] in LOOKED_AT]
    assert max(errors) <= 0.01


def test_activation_of_a_dense_model_is_its_widest_step() -> None:
    """Counted by hand for 8,192 tokens of Llama-3.1-8B, as the run of it printed."""
    spec = _model("llama8", None)
    by_hand = 2 * 8192 * (2 * 14336 + 14336 + 3 * 4096) + 32 * 2**20
    assert activation(spec, ServeSettings(131072, max_num_seqs=256)) == by_hand
    row = next(r for r in ROWS if r["id"] == "s-l8-auto" and r["triton"])
    assert row["activation"] == pytest.approx(by_hand, rel=0.001)


@pytest.mark.parametrize(
    ("shape", "layers", "gib"),
    [("llama8", None, 15.004), ("qwen30a3", None, 56.881), ("qwen8", None, 15.268)],
)
def test_weights_in_16_bits(shape: str, layers: int | None, gib: float) -> None:
    found = start(_model(shape, layers), find_gpu("H200"), LLAMA)
    assert found.weights / 2**30 == pytest.approx(gib, rel=0.002)


def test_a_cache_that_vllm_refuses_is_refused() -> None:
    spec = _model("dsv2lite", None)
    with pytest.raises(BadInput, match="no backend for the latent"):
        layer_pages(spec, ServeSettings(32768, "int8_per_token_head"))
    with pytest.raises(BadInput, match="not planned"):
        ServeSettings(32768, "q8_0")
    with pytest.raises(BadInput, match="no part of a GPU"):
        ServeSettings(32768, gpu_memory_utilization=1.2)


def test_int4_is_halved_in_full_layers_and_not_in_sliding_ones() -> None:
    pages = layer_pages(_model("gemma3_4", None), ServeSettings(32768, "int4_per_token_head"))
    sizes = {page.kind: page.page for page in pages}
    assert sizes == {"full": 16 * 4 * (256 + 8), "sliding": 16 * 4 * (512 + 8)}


def test_sequences_and_the_longest_length() -> None:
    pool = BlockPool.of(_model("llama8", None), ServeSettings(131072, max_num_seqs=8))
    available = 17 * 2**30  # 16 GiB hold one sequence of 131,072 tokens
    assert pool.sequences(available, 131072) == 1
    assert pool.sequences(available, 16384) == 8
    assert pool.sequences(16 * 2**30, 131072) == 0  # one block stays empty
    assert pool.longest(available, 131072) == 131072
    assert pool.longest(8 * 2**30, 131072) == 65536


def test_the_command_says_every_setting() -> None:
    line = ServeSettings(32768, "fp8", 2048, 64, 0.9, enforce_eager=True).command("Qwen/Qwen3-8B")
    assert line == (
        "vllm serve Qwen/Qwen3-8B --max-model-len 32768 --kv-cache-dtype fp8 "
        "--max-num-batched-tokens 2048 --max-num-seqs 64 --gpu-memory-utilization 0.9 "
        "--enforce-eager"
    )


PUBLIC = [
    # (report, model, --max-model-len, GiB left, starts, the length that vLLM then named)
    ("vllm-project/vllm#34076", "Qwen/Qwen3-30B-A3B", 262144, 3.18, False, 34736),
    ("vllm-project/vllm#27508", "openai/gpt-oss-120b", 131072, 1.71, False, None),
    ("vllm-project/vllm#10517", "meta-llama/Llama-3.1-8B-Instruct", 20000, 3.81, True, 31232),
    ("vllm-project/vllm#10517", "meta-llama/Llama-3.1-8B-Instruct", 29000, 2.89, False, 23648),
]


@pytest.mark.parametrize("report", PUBLIC, ids=lambda r: f"{r[0]} {r[2]}")
def test_public_reports(report: tuple[str, str, int, float, bool, int | None]) -> None:
    """What people's servers said, whose logs round the bytes left to 0.01 GiB."""
    _, model, asked, gib, starts, longest = report
    pool = BlockPool.of(load_model(model, offline=True), ServeSettings(asked))
    ends = [int((gib + off) * 2**30) for off in (-0.005, 0.005)]
    assert {pool.blocks_of(asked) * pool.block_bytes <= end for end in ends} == {starts}
    if longest is not None:
        low, high = (pool.longest(end, 2**18) for end in ends)
        assert low <= longest <= high + 15  # vLLM's older versions named whole blocks
