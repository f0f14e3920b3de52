"""Seconds of prompts and of steps by rows, in the form that the latency profile is fitted to.

    python benchmarks/bench_speeds.py --results rows.jsonl --seconds 120 [--first 5 16]
    python benchmarks/bench_speeds.py --list

A case is a model at its real shape with random weights, a configuration, and sequences x tokens:
`STEPS` fill the cache with random codes and time passes of one token each, `PROMPTS` run the prompt
once to warm up and once timed, then time steps behind it. No token is chosen. Rows are appended as
they are measured, with their environment, as profiles/hardware/latency_h200_kvpareto.jsonl has
them; a file that is there is gone on with. Correctness first, by bench_decode.py's check.
"""

import argparse
import json
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from bench_decode import STEPS as REPEATS
from bench_decode import check, content_of, full
from bench_prompts import prompt_times
from bench_runtime import OUTPUT, clean, environment, keep_row, seconds

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime.session import Session
from kvpareto.runtime.weights.random import random_model

LLAMA, QWEN3 = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-4B"
QWEN, EXPERTS = "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen3-30B-A3B-Instruct-2507"
QWEN3_8B, MISTRAL = "Qwen/Qwen3-8B", "mistralai/Mistral-7B-Instruct-v0.3"
SMALL, QWEN_7B = "meta-llama/Llama-3.2-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
GEMMA, GRANITE = "google/gemma-3-4b-it", "granite-4.0-micro"
FOUR = "w4a16-k4v4-g64"

STEPS: tuple[tuple[str, str, str], ...] = (
    # (model, configuration, sequences x tokens)
    (LLAMA, FOUR, "1x2000 1x131000 2x16000 4x4000 4x32000 6x8000 8x4000 8x65000 12x8000 16x2000 "
     "16x16000 24x8000 32x2000 32x8000 48x4000 64x1000 64x4000"),
    (QWEN, FOUR, "1x4000 1x32000 4x8000 8x16000 16x8000 32x8000 64x4000"),
    (QWEN3, FOUR, "1x4000 1x32000 4x8000 8x16000 16x8000 32x8000 64x4000"),
    (QWEN3_8B, FOUR, "1x8000 4x8000 8x8000 16x8000 32x8000"),
    (MISTRAL, FOUR, "6x16000 12x8000 16x4000"),
    (SMALL, FOUR, "1x8000 8x8000 16x16000 32x8000"),
    (QWEN_7B, FOUR, "1x8000 8x16000 16x8000 32x8000"),
    (EXPERTS, FOUR, "1x8000 1x65000 4x8000 8x8000 16x8000 32x4000 64x4000"),
    (LLAMA, "w4a16-k8v8-g64", "1x32000 8x16000 16x8000 32x4000 64x2000"),
    (LLAMA, "w4a16-k16v16", "1x32000 8x8000 16x4000 64x2000"),
    (LLAMA, "w4a16-k2v2-g64", "1x131000 16x16000"),
    (GRANITE, FOUR, "1x8000 4x8000 8x8000 16x8000 32x4000 64x2000"),
    (GEMMA, FOUR, "1x8000 8x8000 16x8000 64x2000"),
    (LLAMA, "w8a16-k8v8-g64", "1x16000 4x8000 8x8000 16x8000 32x4000 64x2000"),
    (LLAMA, "w16a16-k16v16", "1x16000 4x8000 16x4000 64x2000"),
)  # fmt: skip
PROMPTS: tuple[tuple[str, str, str], ...] = (
    (LLAMA, f"{FOUR}+pc1024", "1x8192 4x4096"),
    (LLAMA, f"{FOUR}+pc4096", "1x32000 8x4096"),
    (LLAMA, f"{FOUR}+pc256", "1x8192"),
    (LLAMA, f"{FOUR}+pc8192", "16x2000"),
    (QWEN, f"{FOUR}+pc1024", "1x8192 4x8192"),
    (QWEN3, f"{FOUR}+pc1024", "1x8192"),
    (QWEN3, f"{FOUR}+pc4096", "1x32000 4x8192"),
    (EXPERTS, f"{FOUR}+pc1024", "1x8192"),
    (EXPERTS, f"{FOUR}+pc4096", "1x16384 4x8192"),
    (GRANITE, f"{FOUR}+pc1024", "1x8192"),
    (GEMMA, f"{FOUR}+pc1024", "1x8192"),
    (LLAMA, "w8a16-k8v8-g64+pc1024", "1x8192"),
    (LLAMA, "w16a16-k16v16+pc2048", "1x16384"),
)


@dataclass(frozen=True)
class SpeedCase:
    """`prompt`: whether the prompt is run, and timed, before the steps are."""

    model: str
    config: Configuration
    batch: int
    context: int
    prompt: bool

    @property
    def key(self) -> tuple[Any, ...]:
        return self.model, str(self.config), self.batch, self.context

    @property
    def weights(self) -> tuple[str, int]:
        """Cases of the same are measured on one build of the model."""
        return self.model, self.config.weight_bits


def cases(first: tuple[int, int] = (1, 0)) -> list[SpeedCase]:
    """All of them, those of one model and weight bits together, in the order of the tables; those
    of `first` sequences, from and to, before the others."""
    every = [
        SpeedCase(model, Configuration.parse(text), *map(int, shape.split("x")), prompt=prompt)
        for prompt, table in ((False, STEPS), (True, PROMPTS))
        for model, text, shapes in table
        for shape in shapes.split()
    ]
    builds = list(dict.fromkeys(case.weights for case in every))
    low, high = first
    return sorted(
        every, key=lambda case: (not low <= case.batch <= high, builds.index(case.weights))
    )


def measured(model: Any, spec: Any, case: SpeedCase) -> dict[str, Any]:
    """Seconds of a case on a model that is built."""
    row: dict[str, Any] = {"engine": "kvpareto", "context": case.context, "batch": case.batch}
    clean()
    size = {"tokens": case.context + OUTPUT, "batch": case.batch}
    with Session(model, spec, case.config, **size) as run:
        if case.prompt:
            make = torch.Generator().manual_seed(3)
            ids = torch.randint(5, 5000, (case.batch, case.context), generator=make).cuda()
            row["ttft_s"] = min(prompt_times(run, ids, 1))
            token = ids[:, :1]
        else:
            token = full(run, case.context)
        for _ in range(4):
            run.forward(token)
        row["tpot_s"] = seconds(lambda: [run.forward(token) for _ in range(REPEATS)]) / REPEATS
        row["eager"] = run.why_eager
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="rows are appended to this file")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no case after this long")
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument(
        "--first", type=int, nargs=2, default=(1, 0), metavar=("FROM", "TO"),
        help="cases of so many sequences come first",
    )  # fmt: skip
    args = parser.parse_args()
    every = cases(tuple(args.first))
    if args.list or args.results is None:
        for case in every:
            print(*case.key, "prompt" if case.prompt else "")
        return
    began = time.monotonic()
    env = environment(args.commit)
    rows = args.results.read_text().splitlines() if args.results.exists() else []
    done = {(x["model"], x["config"], x["batch"], x["context"]) for x in map(json.loads, rows)}
    check(FOUR)
    built, model, spec = None, None, None
    for case in every:
        if time.monotonic() - began > args.seconds:
            break
        if case.key in done:
            continue
        try:
            if built != case.weights:
                model = None  # gone before the next is built
                clean()
                _, content = content_of(case.model)
                spec = read_model(content, case.model)
                model, built = random_model(content, case.config.weight_bits, "cuda"), case.weights
            row = measured(model, spec, case)
        except Exception:  # the other cases are still worth measuring
            print(case.key, traceback.format_exc(limit=-3), flush=True)
            continue
        keep_row({"model": case.model, "config": str(case.config), **row, **env}, args.results)
        times = {k: f"{1e3 * v:.3f} ms" for k, v in row.items() if k.endswith("_s")}
        print(f"{time.monotonic() - began:5.1f} s", *case.key, times, flush=True)


if __name__ == "__main__":
    main()
