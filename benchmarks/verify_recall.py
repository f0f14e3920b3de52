"""The recall models: plan and verify for five budgets each. Does retention fall where it was said?

    python benchmarks/verify_recall.py recall.jsonl --seconds 300
    python benchmarks/verify_recall.py recall.jsonl --summary

For each of the two shipped models: a calibration of a few runs (KVPARETO_HOME says where it is
kept; one that is there is used), then five plans under budgets that the plain model does not fit,
from the smallest usable on, each verified under its budget on items that the calibration did not
see. A row has the whole receipt. One process runs everything, and on a GPU what lies outside of the
allocator grows in it with every format, by more than these budgets differ at 4,096 tokens; on a CPU
it is a constant.

Inside, as a receipt has it: the measured 90 % interval meets the predicted one. Strictly inside:
the measured value itself lies in the predicted interval.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure.row_file import read

from kvpareto.cli import run
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import CHUNKS, Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.workload import Workload

MODELS = ("recall", "recall-outliers")
BUDGETS = 5
TASKS = "needle-multikey,variables,arithmetic"


def kvpareto(*arguments: str) -> tuple[int, dict[str, Any] | None]:
    """A command's exit code and its JSON; None where it has none."""
    print("$ kvpareto", *arguments, flush=True)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run([*arguments, "--json"])
    text = out.getvalue()
    return code, json.loads(text) if text.strip() else None


def budgets(plan: dict[str, Any], gpu: str | None) -> list[int]:
    """BUDGETS sizes from what a cache of 4 bits takes beside 16-bit weights, in the smallest
    chunks, to what an unquantized one just misses: every plan quantizes something."""
    spec, hardware = load_model(plan["model"], offline=True), find_gpu(gpu) if gpu else None
    work = Workload(plan["context"], plan["output"])
    least, plain = (
        min(
            estimate(spec, config.with_chunk(chunk), work, KVPARETO, hardware).total_high
            for chunk in CHUNKS
        )
        for config in (Configuration(k_bits=4, v_bits=4), Configuration())
    )
    return [least + (plain - 1 - least) * i // (BUDGETS - 1) for i in range(BUDGETS)]


def verify_all(options: argparse.Namespace) -> None:
    began = time.monotonic()
    done = {tuple(row["key"]) for row in read(options.output)}
    shape = ("--context", str(options.context), "--output", "16", "--offline")
    gpu = ("--gpu", options.gpu) if options.gpu else ()
    measured = ("--tasks", options.tasks, "--device", options.device)
    for model in [options.only] if options.only else MODELS:
        few = ("--items", str(options.calibration_items), "--context", str(options.context))
        arguments = ["calibrate", "-m", model, "--runs", str(options.runs), "--resume", *measured]
        kvpareto(*arguments, *few)
        code, plan = kvpareto("plan", "-m", model, "--budget", "80GB", *shape, *gpu)
        if code or plan is None:
            continue
        for number, budget in enumerate(budgets(plan, options.gpu)):
            if (model, number) in done or time.monotonic() - began > options.seconds:
                continue
            with tempfile.TemporaryDirectory() as folder:
                saved = str(Path(folder) / "plan.json")
                asked = ("plan", "-m", model, "--budget", str(budget), *shape, *gpu)
                code, _ = kvpareto(*asked, "--save", saved)
                if code:
                    continue
                asked = ("verify", "--plan", saved, "-m", model, *measured)
                code, receipt = kvpareto(*asked, "--items", str(options.items))
            if receipt is None:
                continue
            row = {"key": (model, number), "model": model, "receipt": receipt, "exit": code}
            with options.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            print("\n".join(_lines(row)), f"after {time.monotonic() - began:.0f} s", flush=True)


def _lines(row: dict[str, Any]) -> Iterator[str]:
    receipt = row["receipt"]
    for task in receipt["tasks"]:
        if task["retention"] is None:
            continue
        strict = task["predicted_low"] <= task["retention"] <= task["predicted_high"]
        yield (
            f"| {row['model']} | {receipt['budget'] / 1e6:.1f} MB | `{receipt['config']}` "
            f"| {task['task']} | {task['predicted']:.3f} | {task['predicted_low']:.3f} to "
            f"{task['predicted_high']:.3f} | {task['retention']:.3f} ± {task['retention_sd']:.3f} "
            f"| {'yes' if task['inside'] else 'NO'} | {'yes' if strict else 'no'} "
            f"| {receipt['retention']['provenance']} |"
        )


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| model | budget | plan | task | predicted | 90 % | measured | inside | strictly | |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    inside = []
    for row in rows:
        yield from _lines(row)
        judged = [t["inside"] for t in row["receipt"]["tasks"] if t["inside"] is not None]
        if judged:
            inside.append(all(judged))
    good = sum(row["receipt"]["verified"] for row in rows)
    yield ""
    yield f"{sum(inside)} of {len(inside)} plans kept what was predicted; {good} verified"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="start no plan after this long")
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--calibration-items", type=int, default=32, help="of each task there")
    parser.add_argument("--runs", type=int, default=8, help="of each calibration")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gpu", default=None, help="what to plan for, by name")
    parser.add_argument("--summary", action="store_true", help="of the rows that are there")
    options = parser.parse_args()
    if not options.summary:
        from kvpareto.calibration.execution.memory_cap import prefer_expandable_segments

        prefer_expandable_segments()
        verify_all(options)
    print("\n".join(summary(read(options.output))))


if __name__ == "__main__":
    main()
