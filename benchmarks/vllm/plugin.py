"""The plugin beside vLLM's own caches on one card, in one run: TTFT, TPOT, batches, clients.

    pip install "kvpareto[vllm]"
    CUDA_VISIBLE_DEVICES=0 python benchmarks/vllm/plugin.py rows.jsonl bf16:fp8 bf16:plugin
    python benchmarks/vllm/plugin.py rows.jsonl bf16:auto bf16:plugin --tests clients

Each argument is WEIGHTS:CACHE, weights bf16 or awq, cache auto, fp8, int4 (vLLM's own kernels),
plugin (int4) or plugin8. Engines start side by side, each in its process with a fixed cache, and
measure in turn, so that all are on the same card at the same clocks; with --alone they start one
after the other, with all of the card. Weights are random, of a real shape; no tokenizer is needed.

Decoding is timed apart from prompts: a prompt is taken once (its time is TTFT), then again with 1
and with N tokens to answer, when vLLM's prefix cache holds it; the difference is N - 1 steps.
Ratios against the first engine of the same weights are printed at the end.
"""

import argparse
import fcntl
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvpareto.calibration.vllm.random_checkpoint import vocabulary, write_checkpoint

MODEL = Path(__file__).parents[2] / "profiles/models/meta-llama--Llama-3.1-8B-Instruct.json"
CACHES: dict[str, dict[str, Any]] = {
    "auto": {"kv_cache_dtype": "auto"},
    "fp8": {"kv_cache_dtype": "fp8"},
    "int4": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "TRITON_ATTN"},
    "plugin": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "CUSTOM"},
    "plugin8": {"kv_cache_dtype": "int8_per_token_head", "attention_backend": "CUSTOM"},
}
BYTES_PER_CHANNEL = {"auto": 2.0, "fp8": 1.0, "int4": 0.54, "plugin": 0.54, "plugin8": 1.04}


def main() -> None:
    """Start the engines, wait for them, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("engines", nargs="+")
    parser.add_argument("--tests", default="long,batch", help="Of long, batch, clients.")
    parser.add_argument("--layers", type=int, help="A depth to cut the model to.")
    parser.add_argument("--cache-tokens", type=int, default=280_000)
    parser.add_argument("--cache-gb", type=float, default=1e9, help="Of each engine, at most.")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--quick", action="store_true", help="Without torch.compile, for a start.")
    parser.add_argument("--until", type=float, default=1e9, help="Seconds after which to give up.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _measure(asked.child, asked)
        return
    command = [sys.executable, __file__, *sys.argv[1:]]
    begun, running = time.monotonic(), []
    for name in asked.engines:
        running.append(subprocess.Popen([*command, "--child", name]))
        if asked.alone:
            running[-1].wait(max(1.0, asked.until - time.monotonic() + begun))
    for child in running:
        try:
            child.wait(max(1.0, asked.until - time.monotonic() + begun))
        except subprocess.TimeoutExpired:
            child.kill()
    _print_ratios(asked.out, asked.engines)


def _measure(name: str, asked: argparse.Namespace) -> None:
    """One engine: start it, then its tests, each holding the card's lock."""
    weights, cache = name.split(":")
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1",
        VLLM_USE_FLASHINFER_SAMPLER="0",
    )  # fmt: skip
    config = json.loads(MODEL.read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 140_000
    folder = Path(tempfile.mkdtemp())
    write_checkpoint(config, folder, weights, asked.layers)
    vocab = vocabulary(config)
    layers = asked.layers or config["num_hidden_layers"]
    token = 2 * config["num_key_value_heads"] * 128 * layers * BYTES_PER_CHANNEL[cache]
    # vLLM starts only where its utilization is free, which then says nothing of the cache
    size: dict[str, Any] = {"gpu_memory_utilization": 0.05}
    size["kv_cache_memory_bytes"] = int(min(asked.cache_tokens * token, asked.cache_gb * 1e9))
    if asked.alone:
        size = {"gpu_memory_utilization": 0.92}
    begun = time.monotonic()
    from vllm import LLM

    from kvpareto.runtime.vllm_plugin import register

    register()  # where the package is not installed, vLLM finds no entry point of it
    llm = LLM(
        model=str(folder), skip_tokenizer_init=True, load_format="dummy", dtype="bfloat16",
        max_model_len=135_000, max_num_batched_tokens=8192, seed=0, enable_prefix_caching=True,
        compilation_config=_compilation(asked.quick),
        **CACHES[cache], **size,
    )  # fmt: skip
    held = llm.llm_engine.vllm_config.cache_config
    row: dict[str, Any] = {
        "engine": name,
        "start_s": time.monotonic() - begun,
        "cache_tokens": held.num_gpu_blocks * held.block_size,
    }
    draw = random.Random(7)

    def prompts(count: int, length: int) -> list[dict[str, list[int]]]:
        return [{"prompt_token_ids": draw.choices(range(vocab), k=length)} for _ in range(count)]

    def took(given: list[dict[str, list[int]]], tokens: int) -> float:
        from vllm import SamplingParams

        plan = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0.0, detokenize=False)
        start = time.perf_counter()
        llm.generate(given, plan, use_tqdm=False)
        return time.perf_counter() - start

    took(prompts(3, 9_000), 4)
    tests: dict[str, Callable[[], None]] = {
        "long": lambda: row.update(_long(prompts, took)),
        "batch": lambda: row.update(_batch(prompts, took)),
        "clients": lambda: row.update(_clients(prompts, took)),
    }
    for test in asked.tests.split(","):
        with open(asked.out.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tests[test]()
        print(json.dumps(row), flush=True)
    with open(asked.out, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    os._exit(0)  # vLLM's end takes seconds


def _compilation(quick: bool) -> dict[str, Any]:
    """Graphs of few sizes; `quick`: of decode steps alone, of layers as they are written."""
    if quick:
        sizes = {"cudagraph_capture_sizes": [1, 16]}
        return {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", **sizes}
    return {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64]}


def _long(prompts: Callable[..., Any], took: Callable[..., float]) -> dict[str, float]:
    prompt = prompts(1, 131_000)
    first = took(prompt, 1)
    one, many = took(prompt, 1), took(prompt, 129)
    return {"ttft_s": first, "tpot_ms": (many - one) / 128 * 1e3, "again_s": one}


def _batch(prompts: Callable[..., Any], took: Callable[..., float]) -> dict[str, float]:
    given = prompts(16, 16_000)
    first = took(given, 1)
    one, many = took(given, 1), took(given, 129)
    return {"prefill_16x16k_s": first, "decode_16x16k_tokens_s": 16 * 128 / (many - one)}


def _clients(prompts: Callable[..., Any], took: Callable[..., float]) -> dict[str, float]:
    """64 clients who send at once, whether the cache holds them together or not: output tokens of
    all by the time of it all, prompts included."""
    return {"clients_64x16k_tokens_s": 64 * 512 / took(prompts(64, 16_000), 512)}


def _print_ratios(out: Path, engines: list[str]) -> None:
    rows = {}
    for line in out.read_text(encoding="utf-8").splitlines() if out.exists() else ():
        row = json.loads(line)
        rows[row["engine"]] = row
    for name in engines:
        base = next(e for e in engines if e.split(":")[0] == name.split(":")[0])
        if name in rows and base in rows and name != base:
            for key, value in rows[name].items():
                if isinstance(value, float) and key in rows[base] and key != "start_s":
                    print(f"{name} / {base}  {key}: {value:.4g} / {rows[base][key]:.4g} = "
                          f"{value / rows[base][key]:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
