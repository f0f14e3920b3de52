"""Whole prompts on a GPU: time to the first token, and where it goes.

    python benchmarks/bench_prompts.py --results benchmarks/results/prompts.jsonl
    python benchmarks/bench_prompts.py --model deepseek-v2-lite --config w4a16-k4v4-g64+pc1024 \\
        --shapes 1x16384 --timeline

Random weights at the model's real shapes (a bundled model, or one of layers/layer_shapes.py).
Correctness first: a small model's logits by kernels are held to the reference. Where the kernels of
8 bits take a prompt's chunks, the same prompt is timed without them too, in the same run, with the
ratio. `--timeline` prints the last chunk by kernel: how many, their time, and what the card waited.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from bench_decode import check, content_of
from bench_runtime import OUTPUT, clean, environment, keep_row, seconds
from kernel_trace import recorded

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime.kernels.eight_bits import chunk8
from kvpareto.runtime.session import Session
from kvpareto.runtime.weights.random import random_model


def timeline(run: Session, chunk: torch.Tensor) -> dict[str, Any]:
    """Milliseconds of a chunk [B, n] by kernel, and of the card's waiting between them."""
    kernels = recorded(lambda: run.forward(chunk), ("kernel", "gpu_memcpy", "gpu_memset"))
    begin = end = kernels[0]["ts"]
    times: defaultdict[str, list[float]] = defaultdict(list)
    busy = 0.0
    for event in kernels:
        stop = event["ts"] + event["dur"]
        busy += max(0.0, stop - max(end, event["ts"]))
        end = max(end, stop)
        times[event["name"][:72]].append(event["dur"])
    return {
        "chunk_ms": (end - begin) / 1e3,
        "waited_ms": (end - begin - busy) / 1e3,
        "kernels": {
            name: [len(found), round(sum(found) / 1e3, 3)]
            for name, found in sorted(times.items(), key=lambda item: -sum(item[1]))
        },
    }


def prompt_times(run: Session, ids: torch.Tensor, repeats: int) -> list[float]:
    """Seconds of a prompt [B, T], again and again; the first one warms up."""
    return [seconds(lambda: run.prefill(ids)) for _ in range(repeats + 1)][1:]


def measured(model: Any, spec: Any, config: Configuration, shape: str, args: Any) -> dict[str, Any]:
    batch, context = map(int, shape.split("x"))
    make = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 5000, (batch, context), generator=make).cuda()
    row: dict[str, Any] = {"batch": batch, "context": context}
    supports = chunk8.supports
    for name in ("eight", "sixteen"):
        if name == "sixteen":
            if not row["eight_bits"] or not args.both:
                break
            chunk8.supports = lambda state, dtype: False
        clean()
        try:
            with Session(model, spec, config, tokens=context + OUTPUT, batch=batch) as run:
                times = prompt_times(run, ids, args.repeats)
                states = [state for state in run.cache.states if state.key is not None]
                if name == "eight":
                    row["ttft_s"], row["times_s"] = min(times), times
                    row["peak_bytes"] = torch.cuda.max_memory_allocated()
                    row["eight_bits"] = any(supports(s, torch.bfloat16) for s in states)
                    if args.timeline:
                        size = config.chunk or context
                        run.prefill(ids[:, : max(1, context - size)])
                        row["timeline"] = timeline(run, ids[:, -size:])
                else:
                    row["ttft_16_s"] = min(times)
        finally:
            chunk8.supports = supports
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="meta-llama/Llama-3.1-8B-Instruct")
    parser.add_argument("--config", default="w4a16-k4v4-g64+pc8192")
    parser.add_argument("--shapes", nargs="+", default=["1x131000", "16x16000"])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--both", action="store_true", help="without kernels of 8 bits too")
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--no-check", action="store_true", help="where it was checked before")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    args = parser.parse_args()
    env = environment(args.commit)
    config = Configuration.parse(args.config)
    if not args.no_check:
        check(args.config.split("+pc")[0])
    clean()
    _, content = content_of(args.model)
    spec = read_model(content, args.model)
    model: Any = random_model(content, config.weight_bits, "cuda")
    for shape in args.shapes:
        row = measured(model, spec, config, shape, args)
        also = row.get("ttft_16_s")
        ratio = f", {also:.3f} s in 16 bits ({also / row['ttft_s']:.2f}x)" if also else ""
        print(f"{args.model} {config} {shape}: {row['ttft_s']:.3f} s{ratio}", flush=True)
        found = row.get("timeline")
        if found:
            chunk, waited = found["chunk_ms"], found["waited_ms"]
            print(f"  the last chunk {chunk:.2f} ms, of which the card waited {waited:.2f}")
            for name, (count, ms) in list(found["kernels"].items())[:14]:
                print(f"  {ms:9.3f} ms {count:5d} x {1e3 * ms / count:8.1f} us  {name}", flush=True)
        if args.results:
            keep_row(row | {"model": args.model, "config": str(config), **env}, args.results)


if __name__ == "__main__":
    main()
