"""Measure what transformers really allocates on a GPU: rows that predictions are held to.

    python benchmarks/measure_memory.py memory_h200.jsonl [--only gemma] [--device cpu --dry]

Models have the real shapes of bundled configs, fewer layers, and random weights, since memory
does not depend on values. Each row is one prefill and a few decoding steps in bf16, driven as
`generate` does it, with what torch's allocator said after each. A row with the model's config as
it was run goes before its measurements. Rows are appended with fsync as they are measured and
carry their environment.
"""

import argparse
import gc
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache

MODELS = Path(__file__).parent.parent / "profiles" / "models"
STEPS = 4  # decoding steps after each prefill
SDPA = tuple(
    ("sdpa", context, chunk)
    for context in (2048, 10240, 32768)
    for chunk in (None, 1024, 256)
    if (context, chunk) != (32768, 256)
)
EAGER = (("eager", 2048, None), ("eager", 4096, 1024))
SCANS = (("sdpa", 1024, None), ("sdpa", 4096, None), ("sdpa", 4096, 1024), ("sdpa", 3000, 256))


@dataclass(frozen=True)
class CutModel:
    """A bundled config cut to `layers` layers, with `changes` to its text part."""

    name: str
    layers: int
    cases: tuple[tuple[str, int, int | None], ...] = SDPA + EAGER
    changes: dict[str, Any] = field(default_factory=dict)


FLEET = (
    CutModel("google/gemma-3-4b-it", 12),
    CutModel("microsoft/Phi-3-mini-4k-instruct", 8),
    CutModel("deepseek-ai/DeepSeek-V2-Lite-Chat", 5),
    CutModel("Qwen/Qwen3.5-35B-A3B", 8),
    CutModel("openai/gpt-oss-20b", 4, (*EAGER, ("eager", 4096, None), ("eager", 10240, 1024))),
    CutModel("google/gemma-4-26B-A4B", 6),
    CutModel("Qwen/Qwen3-30B-A3B", 6, (*SDPA, *EAGER, ("sdpa", 65536, None))),
    CutModel("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 7, SCANS),
    CutModel("mistralai/Mixtral-8x7B-v0.1", 2),
    CutModel("tiiuae/falcon-7b", 4),
    CutModel("openai-community/gpt2-medium", 12, changes={"n_positions": 32768}),
    CutModel("allenai/OLMo-2-1124-7B-Instruct", 6),
    CutModel("Qwen/Qwen3-8B", 8, (*SDPA, *EAGER, ("sdpa", 131072, None), ("sdpa", 131072, 4096))),
    CutModel("google/gemma-2-2b-it", 8),
    CutModel("zai-org/GLM-4.5-Air", 3),
    CutModel("mistralai/Mistral-7B-Instruct-v0.3", 8, changes={"sliding_window": 4096}),
)


def text_config(model: CutModel) -> dict[str, Any]:
    """The text part of the bundled config, cut and changed."""
    raw = json.loads((MODELS / f"{model.name.replace('/', '--')}.json").read_text())
    config = dict(raw.get("text_config", raw))
    for key in ("quantization_config", "auto_map", "torch_dtype", "dtype"):
        config.pop(key, None)
    for key in ("num_hidden_layers", "n_layer"):
        if key in config:
            config[key] = model.layers
    for key in ("layer_types", "layers_block_type", "mlp_layer_types", "hybrid_override_pattern"):
        if config.get(key) is not None:
            config[key] = config[key][: model.layers]
    return {**config, **model.changes, "dtype": "bfloat16"}


def build(config: dict[str, Any], attention: str, device: str) -> Any:
    plain = {k: v for k, v in config.items() if k not in ("model_type", "dtype")}
    parsed = transformers.AutoConfig.for_model(config["model_type"], **plain)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(
            parsed, dtype=torch.bfloat16, attn_implementation=attention
        ).eval()


class Allocator:
    """torch's CUDA allocator, or zeros where a dry run has none."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def settle(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def start_phase(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()

    def read(self, name: str) -> int:
        if not self.cuda:
            return 0
        torch.cuda.synchronize()
        return int(getattr(torch.cuda, name)())


@torch.inference_mode()
def measure(
    model: Any, context: int, chunk: int | None, device: str, allocator: Allocator
) -> dict[str, Any]:
    """Bytes and seconds of one prefill and STEPS decoding steps."""
    allocator.settle()
    row: dict[str, Any] = {"weights": allocator.read("memory_allocated")}
    ids = torch.randint(0, 1000, (1, context), device=device)
    cache = DynamicCache(config=model.config)
    started = time.perf_counter()
    for start in range(0, context, chunk or context):
        part = ids[:, start : start + (chunk or context)]
        out = model(part, past_key_values=cache, use_cache=True, logits_to_keep=1)
    del out
    row["peak_prefill"] = allocator.read("max_memory_allocated")
    row["ttft_s"] = round(time.perf_counter() - started, 5)
    row["resident"] = allocator.read("memory_allocated")
    row["reserved"] = allocator.read("max_memory_reserved")
    allocator.start_phase()
    token = torch.zeros((1, 1), dtype=torch.long, device=device)
    started = time.perf_counter()
    for _ in range(STEPS):
        out = model(token, past_key_values=cache, use_cache=True)
    row["peak_decode"] = allocator.read("max_memory_allocated")
    row["tpot_s"] = round((time.perf_counter() - started) / STEPS, 5)
    del out
    row["reserved"] = max(row["reserved"], allocator.read("max_memory_reserved"))
    return row


def environment(device: str) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "transformers": transformers.__version__,
        "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "default"),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def rows(model: CutModel, device: str, dry: bool) -> Iterator[dict[str, Any]]:
    allocator = Allocator(device)
    config = text_config(model)
    yield {"model": model.name, "layers": model.layers, "config": config}
    base: dict[str, Any] = {"model": model.name, "layers": model.layers}
    allocator.settle()
    built = build(config, model.cases[0][0], "meta" if dry else device)
    base["parameters"] = sum(p.numel() for p in built.parameters())
    if not dry:
        measure(built, 64, None, device, allocator)  # libraries take their workspaces
    for attention, context, chunk in model.cases:
        if built.config._attn_implementation != attention:
            built.set_attn_implementation(attention)
        case = {"attention": attention, "context": context, "chunk": chunk, "steps": STEPS}
        yield {**base, **case, **({} if dry else measure(built, context, chunk, device, allocator))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true", help="build on meta, measure nothing")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no model after this long")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    started, where = time.perf_counter(), environment(arguments.device)
    with arguments.output.open("a") as file:
        for model in FLEET:
            if arguments.only.lower() not in model.name.lower():
                continue
            if time.perf_counter() - started > arguments.seconds:
                print("out of time before", model.name, flush=True)
                break
            begun = time.perf_counter()
            try:
                for row in rows(model, arguments.device, arguments.dry):
                    file.write(json.dumps({**row, "environment": where}) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except (RuntimeError, ValueError, TypeError, AttributeError) as problem:
                print("failed:", model.name, str(problem)[:300], flush=True)
            print(f"{model.name}: {time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
