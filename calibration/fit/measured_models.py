"""Rows of the real models measured with this runtime (profiles/calibrations/real_*.jsonl).

A point's text is one row, of kind perplexity: exp(-excess) over its tail, which finds the cache as
decoding does. A task is one row where the unquantized model scores ABLE or more, its error that of
the same items under both. They are told as measured, and predictions are held to them. Hundreds of
formats of one model on one text say less than as many rows of many models would: their weights say
so, where a fit is made of them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...planner.accuracy.measured_configs import MeasuredRetention
from ...planner.formats.configuration import Configuration
from .accuracy_rows import AccuracyRow, row_of
from .published import FOLDER

MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2-135m",
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": "qwen2.5-coder-0.5b",
    "google/gemma-3-270m": "gemma-3-270m",
}
"""Hub ids, and the models' keys in models.csv. No shared fit learns from them: at a tenth of the
weight they made it worse for larger models (docs/LOG.md)."""
STRANGERS = {"Qwen/Qwen2.5-Coder-1.5B-Instruct": "qwen2.5-coder-1.5b"}
"""Measured after the design of calibrations was made."""
SHIPPED = {**MODELS, **STRANGERS}
KINDS = {"gsm8k": "reasoning", "mmlu": "short_reasoning"}
"""Of tasks that are no retrieval."""
CHANCE = {"mmlu": 0.25}
"""What guessing scores."""
ABLE = 0.1
"""No retention is taken of a task on which the unquantized model scores less beyond chance."""
TEXT_WEIGHT, TASK_WEIGHT = 0.1, 0.5
LEAST_SD = 0.002
CONTEXT_OF_TASKS = 1024
"""Of tasks without one: their prompts are about as long."""
SOURCES = FOLDER.parent / "calibrations"


def measured_rows(folder: Path = SOURCES) -> list[AccuracyRow]:
    """All rows, in the files' order."""
    return [row for _, row in measured_runs(folder)]


def measured_runs(
    folder: Path = SOURCES, models: Mapping[str, str] = MODELS
) -> list[tuple[Configuration, AccuracyRow]]:
    """All rows of `models` with the very configuration that was run, its prefill chunk too."""
    runs: list[tuple[Configuration, AccuracyRow]] = []
    for path in sorted(folder.glob("real_*.jsonl")):
        found = _points(path, models)
        runs += [*text_rows(found, models), *_tasks(found, models)]
    return runs


def scored_runs(
    folder: Path = SOURCES, models: Mapping[str, str] = MODELS
) -> list[tuple[Configuration, AccuracyRow]]:
    """Tasks under each method at the same bytes (same_bytes_*.jsonl), whose formats the fit has no
    terms for: they are told as measured, and nothing is learnt from them."""
    paths = sorted(folder.glob("same_bytes_*.jsonl"))
    return [run for path in paths for run in _tasks(_points(path, models), models)]


def _points(path: Path, models: Mapping[str, str]) -> list[dict[str, Any]]:
    points = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [p for p in points if p.get("model") in models and "error" not in p]


def text_rows(
    points: Sequence[Mapping[str, Any]], models: Mapping[str, str] = MODELS
) -> list[tuple[Configuration, AccuracyRow]]:
    """One row for each configuration and context, whatever the chunk it was read in; `models` are
    the keys of hub ids."""
    rows: dict[tuple[str, int], tuple[Configuration, AccuracyRow]] = {}
    for point in points:
        config = Configuration.parse(point["config"])
        if point["kind"] != "divergence" or _unquantized(config):
            continue
        tail = point["tail"]
        kept = math.exp(-tail["excess"])
        key = str(config.with_chunk(None)), point["context"]
        retention = MeasuredRetention(kept, max(kept * tail["excess_se"], LEAST_SD))
        if key not in rows:
            row = _row(point, config, "text", "perplexity", retention, TEXT_WEIGHT, 0.0, models)
            rows[key] = config, row
    return list(rows.values())


def _tasks(
    points: Sequence[Mapping[str, Any]], models: Mapping[str, str]
) -> list[tuple[Configuration, AccuracyRow]]:
    whole = {
        (point["kind"], point["context"]): point["tasks"]
        for point in points
        if point["kind"] != "divergence" and _unquantized(Configuration.parse(point["config"]))
    }
    rows = []
    for point in points:
        config = Configuration.parse(point["config"])
        if point["kind"] == "divergence" or _unquantized(config):
            continue
        for task, result in point["tasks"].items():
            reference = whole.get((point["kind"], point["context"]), {}).get(task)
            if reference is None or reference["score"] - CHANCE.get(task, 0.0) < ABLE:
                continue
            kept = MeasuredRetention(
                result["score"] / reference["score"], _paired_error(reference, result)
            )
            kind = KINDS.get(task, "retrieval")
            row = _row(point, config, task, kind, kept, TASK_WEIGHT, reference["score"], models)
            rows.append((config, row))
    return rows


def _paired_error(reference: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    """Standard error of the ratio R of two scores on the same items: by how each item's score
    differs from R times what it is unquantized."""
    parts = max(int(reference["parts"]), 1)
    ratio = result["score"] / reference["score"]
    off = [
        (int(b, 16) - ratio * int(a, 16)) / parts
        for a, b in zip(reference["items"], result["items"], strict=True)
    ]
    count = len(off)
    spread = math.sqrt(sum(x * x for x in off) / count**2)
    return max(spread / reference["score"], 0.5 / count)


def _row(
    point: Mapping[str, Any],
    config: Configuration,
    task: str,
    kind: str,
    kept: MeasuredRetention,
    weight: float,
    baseline: float,
    models: Mapping[str, str] = MODELS,
) -> AccuracyRow:
    context = point["context"] or CONTEXT_OF_TASKS
    name = task.rsplit("-", 1)[0] if task.startswith("needle") else task
    row = row_of(config, models[point["model"]], name, kind, context, kept, "measured on an H200")
    chance = CHANCE.get(task, 0.0)
    return replace(row, weight=weight, chance=chance, baseline=baseline)


def _unquantized(config: Configuration) -> bool:
    return not config.quantizes_kv and config.weight_bits == 16
