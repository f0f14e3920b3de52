"""What a row of profiles/vllm was measured with: its model, and how its server was started."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ... import profiles
from ...planner.engines.vllm.settings import ServeSettings
from ...planner.load_model import load_config, load_model
from ...planner.models.spec import ModelSpec
from .random_checkpoint import write_checkpoint

MODELS = {
    "llama8": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen30a3": "Qwen/Qwen3-30B-A3B",
    "gemma3_4": str(Path(profiles.__file__).parent / "vllm" / "gemma-3-4b-text.json"),
    "granite_tiny": str(Path(profiles.__file__).parent / "vllm" / "granite-4.0-h-tiny.json"),
    "qwen8": "Qwen/Qwen3-8B",
    "gptoss20": "openai/gpt-oss-20b",
    "dsv2lite": "deepseek-ai/DeepSeek-V2-Lite-Chat",
    "dsv3": "deepseek-ai/DeepSeek-V3",
}
FORMATS = {"bf16": "", "own": "", "awq": "awq", "gptq4": "gptq4", "fp8": "fp8"}


def settings_of(row: Mapping[str, Any], **others: Any) -> ServeSettings:
    """What a row's server was started with, and `others`; no row has prefix caching."""
    return ServeSettings(
        row["max_model_len"],
        row["kv_cache_dtype"],
        row["max_num_batched_tokens"],
        row["max_num_seqs"],
        row["gpu_memory_utilization"],
        row["enforce_eager"],
        prefix_caching=False,
        **others,
    )


@cache
def shape_of(shape: str, layers: int | None, weights: str = "own") -> ModelSpec:
    """The shape of a row, cut to its layers; `weights`: as random_checkpoint.py was asked, of which
    "bf16" takes a checkpoint's own format from it."""
    if layers is None:
        return load_model(MODELS[shape], offline=True)
    with TemporaryDirectory() as folder:
        stored = "bf16" if weights == "bf16" else ""
        write_checkpoint(load_config(MODELS[shape]).config, Path(folder), stored, layers)
        return load_model(folder, offline=True)
