"""The whole runtime on a GPU: time to first token, time a token, memory; transformers beside it.

    python benchmarks/bench_runtime.py --model Llama-3.1-8B --contexts 10240 131072

Random weights at the model's real shapes. Correctness first: no time is reported when a small
model on the kernels does not match the reference. Every row is appended, with its environment,
to the file of --results as it is measured; ratios are to transformers in the same run.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration, Granularity
from kvpareto.planner.load_model import load_config
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from kvpareto.runtime.session import Session
from kvpareto.runtime.weights.random import random_model

OUTPUT = 64  # tokens the caches have room for beyond the context
STEPS = 24  # decoded for the time a token
WARM = 65_000  # tokens of a first prompt: every size of a staged segment comes in it
TOLERANCE = 2e-2  # relative error of logits, kernels against the reference

SMALL = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "vocab_size": 1024,
    "max_position_embeddings": 8192,
}


def environment(commit: str | None) -> dict[str, Any]:
    """`commit` where the tree was copied without its history; else git says it."""
    if commit is None:
        command = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": 0,
    }


def keep_row(row: dict[str, Any], results: Path) -> None:
    """Append the row and its time (UTC) to the file."""
    with results.open("a") as file:
        file.write(json.dumps(row | {"time": time.strftime("%FT%TZ", time.gmtime())}) + "\n")


def clean() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def seconds(call: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def relative_error(measured: torch.Tensor, expected: torch.Tensor) -> float:
    return float((measured.float() - expected.float()).norm() / expected.float().norm())


# --- correctness ----------------------------------------------------------------------------


def check(texts: list[str]) -> None:
    """Kernels, graphs and fused modules against the reference, on a small model."""
    model: Any = random_model(SMALL, 16, "cuda")
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    spec = read_model(SMALL, "small")
    make = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 1024, (1, 1300), generator=make).cuda()
    failed = False
    for text in sorted({str(replace(Configuration.parse(t), weight_bits=16)) for t in texts}):
        config = Configuration.parse(text).with_chunk(256)
        plain = Session(model, spec, config, tokens=1400, graphs=False, fused=False, kernels=False)
        with plain as run:
            expected = run.prefill(ids).clone()
            more = torch.tensor([[7]], device="cuda")
            expected_next = run.forward(more).clone()
        with Session(model, spec, config, tokens=1400) as run:
            logits = run.prefill(ids).clone()
            found_next = run.forward(more).clone()
            errors = relative_error(logits, expected), relative_error(found_next, expected_next)
            captured = run.why_eager is None or config.granularity is Granularity.PER_TENSOR
            good = max(errors) < TOLERANCE and captured
            failed |= not good
            verdict = f"{run.why_eager or 'graphs'}{'' if good else ' FAILED'}"
            print(f"check {text}: prefill {errors[0]:.1e}, next {errors[1]:.1e}, {verdict}")
    if failed:
        sys.exit("the kernels do not match the reference: nothing is timed")


# --- transformers ---------------------------------------------------------------------------


@torch.inference_mode()
def transformers_rows(model: Any, ids: torch.Tensor) -> dict[str, Any]:
    """One-shot SDPA prefill with a DynamicCache, then decoding over a StaticCache in a graph."""
    model.set_attn_implementation("sdpa")
    clean()
    resident = torch.cuda.memory_allocated()
    cache = None

    def prefill() -> None:
        nonlocal cache
        cache = transformers.DynamicCache(config=model.config)
        model(ids, past_key_values=cache, logits_to_keep=1)

    model(ids[:, :2048], logits_to_keep=1)
    row: dict[str, Any] = {"ttft_s": seconds(prefill)}
    row["peak_bytes"] = torch.cuda.max_memory_allocated()
    row["weight_bytes"] = resident
    token = ids[:, :1]
    steps = [seconds(lambda: model(token, past_key_values=cache)) for _ in range(16)]
    row["tpot_dynamic_s"] = statistics.median(steps[8:])  # after the allocator has settled
    cache = None
    clean()
    row["tpot_s"] = static_step(model, ids.shape[1])
    return row


def static_step(model: Any, context: int) -> float:
    """Seconds of one decode step over a full StaticCache, captured in a CUDA graph."""
    cache = transformers.StaticCache(config=model.config, max_cache_len=context + OUTPUT)
    token = torch.zeros((1, 1), dtype=torch.long, device="cuda")
    position = torch.full((1, 1), context, device="cuda")
    mask = torch.zeros((1, 1, 1, context + OUTPUT), dtype=torch.bool, device="cuda")
    mask[..., : context + 1] = True

    def step() -> torch.Tensor:
        given = {"position_ids": position, "attention_mask": mask, "past_key_values": cache}
        return model(token, **given).logits

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()

    def steps() -> None:
        for _ in range(STEPS):
            graph.replay()

    return seconds(steps) / STEPS


# --- ours -----------------------------------------------------------------------------------


@contextmanager
def session(model: Any, spec: Any, text: str, context: int, **more: Any) -> Iterator[Session]:
    with Session(model, spec, Configuration.parse(text), tokens=context + OUTPUT, **more) as run:
        yield run


def our_rows(model: Any, spec: Any, text: str, ids: torch.Tensor) -> dict[str, Any]:
    context = ids.shape[1]
    clean()
    with session(model, spec, text, context) as run:
        run.prefill(ids[:, :WARM])  # compiles, captures, plans attention of every size
        torch.cuda.reset_peak_memory_stats()
        row: dict[str, Any] = {"ttft_s": seconds(lambda: run.prefill(ids))}
        token = ids[:, :1]
        run.forward(token)
        row["tpot_s"] = seconds(lambda: [run.forward(token) for _ in range(STEPS)]) / STEPS
        use = run.memory()
        row |= {"peak_bytes": use.peak, "weight_bytes": use.weights, "kv_bytes": use.kv}
        row["reserved_bytes"] = torch.cuda.memory_reserved()
        row["eager"] = run.why_eager
    work = Workload(context=context, output=OUTPUT)
    config = Configuration.parse(text)
    assert row["kv_bytes"] == kv_bytes(spec, config, work, KVPARETO).total
    row["planner_peak_bytes"] = estimate(spec, config, work, KVPARETO, None).allocated_peak
    return row


def profile(model: Any, spec: Any, text: str, ids: torch.Tensor, path: Path) -> None:
    """Where the last chunk of a prompt and a decode step spend their time, by kernel."""
    with session(model, spec, text, ids.shape[1]) as run, path.open("a") as file:
        chunk = run.config.chunk or ids.shape[1]
        run.prefill(ids[:, :-chunk])
        for what, call in (
            ("last chunk", lambda: run.forward(ids[:, -chunk:])),
            ("decode step", lambda: run.forward(ids[:, :1])),
        ):
            with torch.profiler.profile() as trace:
                call()
                torch.cuda.synchronize()
            table = trace.key_averages().table(
                sort_by="cuda_time_total", row_limit=24, max_name_column_width=60
            )
            file.write(f"== {text} {ids.shape[1]} {what}\n{table}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Llama-3.1-8B")
    parser.add_argument("--contexts", type=int, nargs="+", default=[10240, 32768, 131072])
    parser.add_argument(
        "--configs",
        nargs="+",
        default=["w16a16-k16v16+pc1024", "w4a16-k4v4-g64+pc1024", "w4a16-k4v4-g64+pc256"],
    )
    parser.add_argument("--sweep", type=int, nargs="*", default=[], help="contexts to sweep chunks")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    args = parser.parse_args()
    env = environment(args.commit)
    print(json.dumps(env), flush=True)
    check(args.configs)
    clean()
    torch._C._cuda_clearCublasWorkspaces()  # those of the small model's sessions
    source = load_config(args.model, offline=True)
    spec = read_model(source.config, source.name)
    make = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, 1000, (1, max(args.contexts)), generator=make).cuda()

    def record(row: dict[str, Any]) -> None:
        with args.results.open("a") as file:
            file.write(json.dumps({"model": source.name, **row, **env}) + "\n")
        shown = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
        print(json.dumps(shown), flush=True)

    bits = sorted({Configuration.parse(c).weight_bits for c in args.configs}, reverse=True)
    bits = bits if args.no_baseline or 16 in bits else [16, *bits]
    baseline: dict[int, dict[str, Any]] = {}
    for weight_bits in bits:
        model = random_model(source.config, weight_bits, "cuda")
        if weight_bits == 16 and not args.no_baseline:
            for context in args.contexts:
                row = transformers_rows(model, prompt[:, :context])
                baseline[context] = row
                record({"engine": "transformers", "config": "bf16", "context": context, **row})
            torch._C._cuda_clearCublasWorkspaces()  # the streams it captured on are gone
        texts = [c for c in args.configs if Configuration.parse(c).weight_bits == weight_bits]
        for context in args.contexts:
            for text in texts:
                row = our_rows(model, spec, text, prompt[:, :context])
                for key in ("ttft_s", "tpot_s"):
                    if context in baseline:
                        row[f"{key}_ratio"] = row[key] / baseline[context][key]
                record({"engine": "kvpareto", "config": text, "context": context, **row})
        for context in args.sweep:
            for text in texts[:1]:
                for chunk in (64, 128, 256, 512, 1024, 2048, 4096, 8192):
                    swept = str(Configuration.parse(text).with_chunk(chunk))
                    row = our_rows(model, spec, swept, prompt[:, :context])
                    record({"engine": "kvpareto", "config": swept, "context": context, **row})
        if args.profile and texts:
            profile(model, spec, texts[0], prompt[:, : args.contexts[-1]], args.profile)
        del model
        clean()


if __name__ == "__main__":
    main()
