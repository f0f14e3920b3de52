"""Decode steps on a GPU at full caches, and where their time goes: no prompt is run for them.

    python benchmarks/bench_decode.py --results benchmarks/results/decode.jsonl [--timeline]

A step's time depends on how many tokens the cache holds, not on what they are: the cache gets
random codes and its clock is set. Random weights at the model's real shapes; the step as a session
runs it, captured in a CUDA graph. Correctness first: on a small model of the same weight bits the
captured kernels' logits are held to the reference's. `--timeline` prints a step by kernel; launches
overlap, so a kernel's time is what its end adds to the end of the one before.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from bench_runtime import SMALL, clean, environment, keep_row, relative_error, seconds
from kernel_trace import recorded
from layers.layer_shapes import MODELS, PUBLISHED, architecture

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_config
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime.session import Session
from kvpareto.runtime.weights.random import random_model

STEPS = 24
TOLERANCE = 3e-2  # relative error of logits: 4-bit caches whose codes may flip


def check(text: str) -> None:
    """Steps by kernels and graphs against the reference, one to forty sequences."""
    small = SMALL | {"intermediate_size": 1024, "num_key_value_heads": 2}
    config, spec = Configuration.parse(text).with_chunk(256), read_model(small, "small")
    model: Any = random_model(small, config.weight_bits, "cuda")
    for batch in (1, 2, 16, 40):
        make = torch.Generator().manual_seed(3)
        ids = torch.randint(0, 1024, (batch, 300), generator=make).cuda()
        logits = []
        for fast in (False, True):
            more = {"graphs": fast, "fused": fast, "kernels": fast}
            with Session(model, spec, config, tokens=400, batch=batch, **more) as run:
                run.prefill(ids)
                logits.append(run.forward(ids[:, :1]).clone())
        error = relative_error(logits[1], logits[0])
        print(f"check {text}, {batch} sequences: {error:.1e}", flush=True)
        if not error < TOLERANCE:
            sys.exit("the kernels do not match the reference: nothing is timed")


def full(run: Session, context: int) -> torch.Tensor:
    """Capture a step, fill the cache with random codes up to `context`; a token [B, 1]."""
    run.cache.reset()
    run.forward.capture(1)
    for state in run.cache.states:
        for side in (state.key, state.value):
            if side.scale is None:
                side.values.zero_()
                continue
            side.values.random_(0, 256)
            side.scale.uniform_(-0.01, 0.01)
    run.cache.clock.place(context)
    batch = run.cache.clock.starts.shape[0]
    return torch.zeros((batch, 1), dtype=torch.long, device="cuda")


def timeline(run: Session, token: torch.Tensor) -> dict[str, Any]:
    """Microseconds of one step by kernel: how many, and what they added to the step's end."""

    def two_steps() -> None:
        for _ in range(2):
            run.forward(token)

    kernels = recorded(two_steps)
    step = kernels[len(kernels) // 2 :]
    end = step[0]["ts"]
    added: defaultdict[str, list[float]] = defaultdict(list)
    for event in step:
        stop = max(end, event["ts"] + event["dur"])
        grid = "x".join(map(str, event["args"].get("grid", ())))
        shared = event["args"].get("shared memory", 0)  # tells products of one kernel apart
        added[f"{event['name'][:48]} {grid} {shared}"].append(stop - end)
        end = stop
    total = end - step[0]["ts"]
    return {
        "step_us": total,
        "kernels": {
            name: [len(times), round(sum(times), 1)]
            for name, times in sorted(added.items(), key=lambda item: -sum(item[1]))
        },
    }


def content_of(model: str) -> tuple[str, dict[str, Any]]:
    """Name and config of a bundled model, or of one of layers/layer_shapes.py."""
    if model in MODELS or model in PUBLISHED:
        return model, architecture(model)
    source = load_config(model, offline=True)
    return source.name, source.config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Llama-3.1-8B")
    parser.add_argument("--config", default="w4a16-k4v4-g64")
    shapes = ["1x131000", "16x16000", "64x4000", "8x65000"]
    parser.add_argument("--shapes", nargs="+", default=shapes, help="sequences x tokens")
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    args = parser.parse_args()
    env = environment(args.commit)
    check(args.config)
    clean()
    name, content = content_of(args.model)
    spec = read_model(content, name)
    config = Configuration.parse(args.config)
    model: Any = random_model(content, config.weight_bits, "cuda")
    for shape in args.shapes:
        batch, context = map(int, shape.split("x"))
        clean()
        with Session(model, spec, config, tokens=context + 2 * STEPS, batch=batch) as run:
            token = full(run, context)
            for _ in range(4):
                run.forward(token)
            steps = seconds(lambda: [run.forward(token) for _ in range(STEPS)]) / STEPS  # noqa: B023
            row: dict[str, Any] = {"batch": batch, "context": context, "step_s": steps}
            row["eager"] = run.why_eager
            if args.timeline:
                row["timeline"] = timeline(run, token)
        print(f"{shape}: {steps * 1e3:.3f} ms a step, {batch / steps:.0f} tokens/s", flush=True)
        for name, (count, us) in list(row.get("timeline", {}).get("kernels", {}).items())[:14]:
            print(f"  {us:9.1f} us {count:4d} x {us / count:7.2f}  {name}", flush=True)
        if args.results:
            keep_row(row | {"model": name, "config": str(config), **env}, args.results)


if __name__ == "__main__":
    main()
