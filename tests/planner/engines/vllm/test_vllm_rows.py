"""vLLM's starts of profiles/vllm/speeds: what its cache holds, on one card and on two."""

import json
from statistics import median
from typing import Any

import pytest

from kvpareto.calibration.vllm.row_server import FORMATS, settings_of, shape_of
from kvpareto.planner.engines.vllm.block_pool import BlockPool
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.engines.vllm.start import Start, start
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.profiles import read

LINES = read("vllm/speeds_0.26_h200.jsonl").splitlines()
ROWS = [row for row in map(json.loads, LINES) if "blocks" in row]
PROFILED = [row for row in ROWS if "kv_cache_memory_bytes" not in row]


def _start(row: dict[str, Any], weights: int | None = None) -> Start:
    settings = settings_of(row, quantization=FORMATS[row["weights"]], tensor_parallel=row["cards"])
    spec = shape_of(row["shape"], row["layers"], row["weights"])
    return start(spec, find_gpu(row["gpu"]), settings, weights)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["id"])
def test_blocks_and_tokens_of_the_bytes_that_vllm_had(row: dict[str, Any]) -> None:
    pool = _start(row).pool
    assert pool.blocks(row["available"]) == row["blocks"]
    assert pool.tokens(row["available"]) == row["tokens"]


def test_tokens_predicted_from_the_config_alone() -> None:
    """Weights too; none of these starts was looked at before the rules were written."""
    errors = {row["id"]: _start(row).tokens.expected / row["tokens"] - 1 for row in PROFILED}
    assert len(errors) == 10
    assert median(map(abs, errors.values())) <= 0.01
    assert max(map(abs, errors.values())) <= 0.03, errors


@pytest.mark.parametrize("row", PROFILED, ids=lambda r: r["id"])
def test_the_interval_holds_what_was_found(row: dict[str, Any]) -> None:
    found = _start(row)
    assert found.fits
    assert found.tokens.low <= row["tokens"] <= found.tokens.high


@pytest.mark.parametrize(
    ("shape", "layers", "dtype", "given", "tokens"),
    [
        ("gemma3_4", None, "int8_per_token_head", 6_000_000_000, 138_406),
        ("gptoss20", 8, "auto", 2_500_000_000, 203_297),
    ],
)
def test_tokens_that_a_start_printed_before_it_was_cut(
    shape: str, layers: int | None, dtype: str, given: int, tokens: int
) -> None:
    """Engines that were ended while they captured graphs; they had counted their cache."""
    settings = ServeSettings(33000, dtype, 8192, 64, prefix_caching=False)
    assert BlockPool.of(shape_of(shape, layers), settings).tokens(given) == tokens
