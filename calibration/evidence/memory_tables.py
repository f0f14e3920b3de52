"""Predicted memory beside rows measured on an H200: `python -m
kvpareto.calibration.evidence.memory_tables`.

The rows lie in profiles/calibrations: transformers on whole models to 131,072 tokens
(memory_h200_baseline) and on sixteen architectures cut to a few layers (memory_h200, made by
benchmarks/measure_memory.py); the kvpareto engine on ten whole models (runs_h200, made by
benchmarks/measure runs). The tests hold every row; this prints the tables of docs/memory.md.
"""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...planner.engine import Engine
from ...planner.engines.kvpareto import KVPARETO
from ...planner.engines.transformers import TRANSFORMERS
from ...planner.engines.transformers_eager import TRANSFORMERS_EAGER
from ...planner.formats.configuration import Configuration
from ...planner.hardware.gpu_names import find_gpu
from ...planner.hardware.gpus import Hardware
from ...planner.load_model import load_model
from ...planner.memory.estimate import MemoryEstimate, estimate
from ...planner.models.read_config import read_model
from ...planner.models.spec import ModelSpec
from ...planner.workload import Workload
from ...profiles import read
from ..fit.hardware.engine_runs import RunRow, shipped_runs

BASELINE_MODELS = {
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5-3b": "Qwen/Qwen2.5-3B-Instruct",
}
BASELINE_STEPS = 20  # decoding steps: what the caches grew by in every row


@dataclass(frozen=True)
class MemoryRow:
    """One measured prefill and its decoding steps, and what the planner says of it."""

    model: str
    name: str
    predicted: MemoryEstimate
    peak_prefill: int
    resident: int
    peak_decode: int
    reserved: int

    @property
    def peak(self) -> int:
        return max(self.peak_prefill, self.peak_decode)

    @property
    def error(self) -> float:
        """Relative error of the predicted `allocated_peak`."""
        return self.predicted.allocated_peak / self.peak - 1


def h200() -> Hardware:
    return find_gpu("H200")


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read(f"calibrations/{name}").splitlines()]


@cache
def configs() -> dict[str, dict[str, Any]]:
    """The configs that benchmarks/measure_memory.py ran, by model."""
    return {x["model"]: x["config"] for x in _lines("memory_h200.jsonl") if "config" in x}


@cache
def spec_of(model: str) -> ModelSpec:
    return read_model(configs()[model], model)


@cache
def fleet_rows() -> tuple[MemoryRow, ...]:
    """Sixteen architectures, cut to a few layers, caching allocator's defaults."""
    measured = [x for x in _lines("memory_h200.jsonl") if "peak_prefill" in x]
    return tuple(
        _row(
            x["model"],
            f"{x['model'].split('/')[1]}-{x['attention']}-{x['context']}-{x['chunk']}",
            spec_of(x["model"]),
            Configuration(chunk=x["chunk"]),
            Workload(x["context"], x["steps"]),
            TRANSFORMERS if x["attention"] == "sdpa" else TRANSFORMERS_EAGER,
            x,
        )
        for x in measured
    )


@cache
def baseline_rows() -> tuple[MemoryRow, ...]:
    """Llama-3.1-8B and Qwen2.5-3B, whole, to 131,072 tokens; DynamicCache and QuantizedCache."""
    memory_rows = []
    for x in _lines("memory_h200_baseline.jsonl"):
        if "model" not in x or x["tag"] == "warmup":  # a process's first pass: no workspace yet
            continue
        quantized = x["tag"] in ("quanto4", "hqq4")
        text = "w16a16-k4v4-g64" if quantized else "w16a16-k16v16"
        memory_rows.append(
            _row(
                x["model"],
                f"{x['model']}-{x['tag']}-{x['ctx']}-{x['chunk']}",
                load_model(BASELINE_MODELS[x["model"]], offline=True),
                Configuration.parse(text).with_chunk(x["chunk"]),
                Workload(x["ctx"], BASELINE_STEPS, full_logits="logits" in x["tag"]),
                TRANSFORMERS_EAGER if "eager" in x["tag"] else TRANSFORMERS,
                x,
            )
        )
    return tuple(memory_rows)


def _row(
    model: str,
    name: str,
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    x: dict[str, Any],
) -> MemoryRow:
    return MemoryRow(
        model,
        name,
        estimate(spec, config, workload, engine, h200()),
        x["peak_prefill"],
        x["resident"],
        x["peak_decode"],
        x["reserved"],
    )


def table(rows: Iterable[MemoryRow]) -> str:
    """Markdown: for each model its rows, and the median and worst error of three numbers."""
    by_model: dict[str, list[MemoryRow]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    lines = [
        "| model | rows | allocated_peak: median | worst | resident: worst |",
        "|---|---|---|---|---|",
    ]
    for model, of_model in by_model.items():
        errors = sorted(abs(row.error) for row in of_model)
        resident = max(abs(r.predicted.allocated_resident / r.resident - 1) for r in of_model)
        lines.append(
            f"| {model} | {len(of_model)} | {statistics.median(errors):.3%} | {errors[-1]:.3%} "
            f"| {resident:.3%} |"
        )
    errors = sorted(abs(row.error) for of_model in by_model.values() for row in of_model)
    median = statistics.median(errors)
    lines.append(f"| **all** | {len(errors)} | **{median:.3%}** | **{errors[-1]:.3%}** | |")
    return "\n".join(lines)


@dataclass(frozen=True)
class RuntimeRow:
    """One run of the kvpareto engine, and what the planner says of it."""

    run: RunRow
    predicted: MemoryEstimate

    @property
    def peak(self) -> float:
        """Relative error of `allocated_peak`."""
        assert self.run.allocated_peak is not None
        return self.predicted.allocated_peak / self.run.allocated_peak - 1

    @property
    def resident(self) -> float:
        """Relative error of `allocated_resident`."""
        assert self.run.allocated_resident is not None
        return self.predicted.allocated_resident / self.run.allocated_resident - 1

    @property
    def total(self) -> float:
        """Relative error of `total`: the context, and what torch reserved."""
        assert self.run.device_used is not None
        return self.predicted.total / self.run.device_used - 1

    @property
    def held(self) -> bool:
        """Whether the interval of the total holds what was measured."""
        assert self.run.device_used is not None
        return self.predicted.total_low <= self.run.device_used <= self.predicted.total_high


@cache
def runtime_rows() -> tuple[RuntimeRow, ...]:
    """The kvpareto engine on whole models with random weights."""
    return tuple(
        RuntimeRow(run, estimate(run.spec, run.config, run.workload, KVPARETO, h200()))
        for run in shipped_runs()
        if run.allocated_peak is not None
    )


def runtime_table(rows: Iterable[RuntimeRow]) -> str:
    """Markdown: for each model its rows, median and worst errors, and the share of totals that lie
    in their interval."""
    by_model: dict[str, list[RuntimeRow]] = {}
    for row in rows:
        by_model.setdefault(row.run.model, []).append(row)
    lines = [
        "| model | rows | allocated_peak: median | worst | resident: worst | total: median "
        "| worst | held |",
        "|---|---|---|---|---|---|---|---|",
        *(_own_line(model, of_model) for model, of_model in by_model.items()),
        _own_line("**all**", [row for of_model in by_model.values() for row in of_model]),
    ]
    return "\n".join(lines)


def _own_line(name: str, rows: list[RuntimeRow]) -> str:
    peak, total = (sorted(abs(getattr(row, x)) for row in rows) for x in ("peak", "total"))
    resident = max(abs(row.resident) for row in rows)
    held = statistics.mean(row.held for row in rows)
    return (
        f"| {name} | {len(rows)} | {statistics.median(peak):.3%} | {peak[-1]:.3%} "
        f"| {resident:.3%} | {statistics.median(total):.2%} | {total[-1]:.2%} | {held:.0%} |"
    )


if __name__ == "__main__":
    print(table((*baseline_rows(), *fleet_rows())))
    print()
    print(runtime_table(runtime_rows()))
