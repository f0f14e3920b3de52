"""llama.cpp on a processor: prompt and generation rates of a few shapes and types, row by row.

    pip install "kvpareto[llamacpp]" gguf
    python benchmarks/llama_cpp/cpu_speed.py profiles/llama_cpp/speed_cpu.jsonl

Models of random weights, larger than a processor's caches, answer prompts of 256 tokens on one
thread. A row has tokens a second of that core's own time (process_time), so that other work on the
machine counts only by the caches and the bandwidth that it takes; the fastest of three is kept.
"""

import argparse
import json
import os
import random
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kvpareto.calibration.llama_cpp.random_models import write_model

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 16,
    "num_key_value_heads": 4, "intermediate_size": 7168, "vocab_size": 32000, "head_dim": 128,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = LLAMA | {
    "model_type": "qwen3_moe", "num_experts": 32, "num_experts_per_tok": 4,
    "moe_intermediate_size": 768, "norm_topk_prob": True, "mlp_only_layers": [],
    "decoder_sparse_step": 1,
}  # fmt: skip
SHAPES = {"llama": LLAMA, "experts": EXPERTS}
CASES = [
    ("llama", "F16", "f16"),
    ("llama", "Q8_0", "f16"),
    ("llama", "Q6_K", "f16"),
    ("llama", "Q4_K", "f16"),
    ("llama", "Q4_K", "q8_0"),
    ("experts", "Q4_K", "f16"),
    ("experts", "Q8_0", "f16"),
]
PROMPT, PREDICT = 256, 16


def rates(path: Path, cache: str) -> dict[str, float]:
    """Tokens a second of the core's own time, of prompts and of generation: fastest of three."""
    import xllamacpp as x

    params = x.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = 1024, 512, 512, 1
    params.cache_type_k = params.cache_type_v = x.ggml_type({"f16": 1, "q8_0": 8}[cache])
    params.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.fit_params, params.warmup, params.verbosity = False, True, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server, draw = x.Server(params), random.Random(0)

    def seconds(tokens: int) -> float:
        prompt = [draw.randrange(300, 2000) for _ in range(PROMPT)]
        asked = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, "temperature": 0}
        started = time.process_time()
        server.handle_completions(asked)
        return time.process_time() - started

    first = min(seconds(1) for _ in range(3))
    later = min(seconds(1 + PREDICT) for _ in range(3)) - first
    return {
        "prompt_per_s": round(PROMPT / first, 3),
        "predicted_per_s": round(PREDICT / max(later, 1e-9), 3),
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def main(out: Path) -> None:
    lines = out.read_text().splitlines() if out.exists() else []
    done = {json.dumps([r["shape"], r["weights"], r["cache"]])
            for r in map(json.loads, lines) if "shape" in r}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, out.open("a") as file:
        if not lines:
            known = {"build": f"xllamacpp {version('xllamacpp')}", "processor": processor()}
            known |= {"cores": str(os.cpu_count()), "threads": "1", "prompt": str(PROMPT)}
            file.write(json.dumps({"environment": known, "shapes": SHAPES}) + "\n")
        for shape, weights, cache in CASES:
            path = Path(folder) / f"{shape}-{weights}.gguf"
            if json.dumps([shape, weights, cache]) in done:
                continue
            if not path.exists():
                write_model(SHAPES[shape], path, weights=weights)
            row = {"shape": shape, "weights": weights, "cache": cache} | rates(path, cache)
            row |= {"bytes": path.stat().st_size, "load": round(os.getloadavg()[0], 2)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    given = parser.parse_args()
    main(given.rows)
