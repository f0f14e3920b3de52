"""Whole runs of the kvpareto engine, wherever they were written down: what time and memory are
fitted to.

    profiles/calibrations/runs_h200.jsonl          benchmarks/measure runs, and configs of models
                                                   that were not run as they are bundled
                          verify_h200.jsonl        benchmarks/measure verify: a hundred plans
                          paper_h200.jsonl         benchmarks/measure paper
                          layers_h200.jsonl, granite4_h200.jsonl, speeds_h200.jsonl
                                                   benchmarks/layers, whose models' configs are
                                                   calibrations/layer_shapes.jsonl
    profiles/hardware/latency_h200_kvpareto.jsonl  benchmarks/bench_runtime.py
    a calibration's rows.jsonl                     `kvpareto calibrate` and `verify` on this machine
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...planner.accuracy.calibrations import fingerprint
from ...planner.engine import Engine
from ...planner.engines.kvpareto import KVPARETO
from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.latency.roofline_experts import FEW_ROWS
from ...planner.load_model import load_model
from ...planner.models.read_config import read_model
from ...planner.models.spec import ModelSpec, MoEFFN
from ...planner.workload import Workload
from ...profiles import read
from ..records.record_file import Record

RUNS = (
    *(f"calibrations/{name}_h200.jsonl" for name in ("runs", "verify", "paper")),
    *(f"calibrations/{name}_h200.jsonl" for name in ("layers", "granite4", "speeds")),
)
SINCE = "2026-11-24"  # bench_runtime's rows before were of kernels that are gone
BEFORE = "-pt"  # appended on the host then, which no pass is captured with
STAGED_BATCHES = "2026-11-28T09"  # before, the chunks of a batch went tile by tile
GROUPED_EXPERTS = "2026-11-28T16"  # before, packed experts took their tokens one after another
EIGHT_BITS = "2026-11-28T14"  # before, chunks over 4 bits or fewer were attended to in 16
OVERLAPS = "2026-11-28T16:54"  # before, products of a step were launched one after another
WHOLE = (
    "2026-11-28T20"  # before, few rows of 4 bits went through row.cu, sweep.cu, tile.cu, ring.cu
)
READY = "2026-11-28T23:52"  # before, 5 to 16 rows of 4 bits were not ready in whole numbers
ALIGNED = "2026-11-29T07:05"  # before, merges of parts of a head had bank conflicts
COPIED = "2026-11-29T10:10"  # before, queries and keys of several sequences were copied and normed
ONE_ROW = "2026-11-28T23:05"  # before, the last layer of a prompt ran whole
SHAPES = "calibrations/layer_shapes.jsonl"
SWEEPS = "hardware/latency_h200_kvpareto.jsonl"
OUTPUT = 64  # tokens that the caches of bench_runtime.py have room for beyond the context
SPEED_OUTPUT = 16  # the same of a calibration's runs (trial.py), where a row does not say it


@dataclass(frozen=True)
class RunRow:
    """One run. Seconds, bytes; None: not measured."""

    model: str
    spec: ModelSpec
    config: Configuration
    workload: Workload
    gpu: str
    ttft_s: float | None
    tpot_s: float | None
    captured: bool = True
    """Whether passes ran as CUDA graphs."""
    eight: bool = True
    """Whether the engine attended to chunks in 8 bits where it does now."""
    overlaps: bool = True
    """The same of launches that overlap, of sweep.cu and of Granite's gate as one kernel."""
    whole: bool = True
    """The same of products of few rows by stream.cu and wide.cu."""
    aligned: bool = True
    """The same of merges without bank conflicts."""
    in_place: bool = True
    """The same of norms of queries and keys where they lie."""
    ready: bool = True
    """The same of 5 to 16 rows, which are ready for parts.cu."""
    one_row: bool = True
    """The same of the last layer, run for the row of a prompt that is read."""
    chosen: bool = True
    """Whether a token was chosen in each step: bench_runtime.py and its neighbours time passes."""
    allocated_resident: int | None = None
    allocated_peak: int | None = None
    workspace: int | None = None
    reserved_peak: int | None = None
    context_bytes: int | None = None
    device_used: int | None = None

    @property
    def name(self) -> str:
        batch = f" x{self.workload.batch}" if self.workload.batch > 1 else ""
        return f"{self.model.split('/')[-1]} {self.config} {self.workload.context:,}{batch}"


def shipped_runs() -> list[RunRow]:
    """The rows of an H200 that this package brings."""
    swept = [line for line in _lines(SWEEPS) if line["time"] >= SINCE]
    swept = [line for line in swept if BEFORE not in line["config"]]
    return [*shipped_executions(KVPARETO), *sweeps(swept)]


def shipped_executions(engine: Engine) -> list[RunRow]:
    """Those of them that calibration/execution/run.py ran, of one engine."""
    return list(runs((line for name in RUNS for line in _lines(name)), engine))


def _lines(name: str) -> list[dict[str, Any]]:
    try:
        text = read(name)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]


def runs(lines: Iterable[dict[str, Any]], engine: Engine = KVPARETO) -> Iterator[RunRow]:
    """Executions of an engine that went well, bare or within a benchmark's row. The configs of
    models that were not run as they are bundled are lines before them, or SHAPES."""
    described: dict[str, ModelSpec] = {}
    for line in lines:
        if "architecture" in line:
            described[line["model"]] = read_model(line["architecture"], line["model"])
            continue
        x = line.get("execution", line)
        if x.get("outcome") != "ok" or x["engine"] != engine.name:
            continue
        spec = described.get(x["model"]) or _spec(x["model"])
        config = Configuration.parse(x["config"])
        in_turn = _in_turn(x, spec, config)
        yield RunRow(
            model=x["model"],
            spec=spec,
            config=config,
            workload=Workload(x["context"], x["output"], batch=x["batch"]),
            gpu=x["environment"]["gpu"],
            ttft_s=None if _by_tiles(x) or in_turn or _few_rows(x, config) else x.get("ttft_s"),
            tpot_s=x.get("tpot_s"),
            captured="why_eager" not in x,
            eight=x["started"] >= EIGHT_BITS,
            overlaps=x["started"] >= OVERLAPS,
            whole=x["started"] >= WHOLE,
            one_row=x["started"] >= ONE_ROW,
            ready=x["started"] >= READY,
            aligned=x["started"] >= ALIGNED,
            in_place=x["started"] >= COPIED,
            allocated_resident=x["allocated_resident"],
            allocated_peak=None if in_turn else max(x["peaks"][n] for n in ("prefill", "decode")),
            workspace=x.get("workspace"),
            reserved_peak=x["reserved_peak"],
            context_bytes=x["context_bytes"],
            device_used=x["device_used"],
        )


def _by_tiles(line: dict[str, Any]) -> bool:
    """Whether a run's prompts went tile by tile: those of batches started before
    STAGED_BATCHES."""
    return (
        line["batch"] > 1 and line["engine"] == KVPARETO.name and line["started"] < STAGED_BATCHES
    )


def _few_rows(line: dict[str, Any], config: Configuration) -> bool:
    """Whether packed weights multiplied with a prompt's chunks in kernels of few rows that are
    gone: at 64 rows of 8 bits these took 2.5 times as long."""
    rows = (config.chunk or line["context"]) * line.get("batch", 1)
    packed = config.weight_bits < 16 and line["engine"] == KVPARETO.name
    when: str = line["started"] if "started" in line else line["time"]
    return packed and rows <= FEW_ROWS and when < OVERLAPS


def _in_turn(line: dict[str, Any], spec: ModelSpec, config: Configuration) -> bool:
    """Whether packed experts took a prompt's tokens one after another: those of runs started
    before GROUPED_EXPERTS, whose seconds and peaks are of that."""
    experts = config.weight_bits < 16 and any(isinstance(x.ffn, MoEFFN) for x in spec.layers)
    return experts and line["engine"] == KVPARETO.name and line["started"] < GROUPED_EXPERTS


def sweeps(lines: Iterable[dict[str, Any]]) -> Iterator[RunRow]:
    """Rows of benchmarks/bench_runtime.py that are of our engine, and its neighbours' of steps or
    prompts alone. What its allocator kept of the
    runs before is in its bytes, so only its seconds are taken."""
    for x in lines:
        if x["engine"] == "kvpareto":
            config = Configuration.parse(x["config"])
            yield RunRow(
                model=x["model"],
                spec=_spec(x["model"]),
                config=config,
                workload=Workload(x["context"], OUTPUT, batch=x.get("batch", 1)),
                gpu=x["gpu"],
                ttft_s=None if _few_rows(x, config) else x.get("ttft_s"),
                tpot_s=x.get("tpot_s"),
                captured=x.get("eager") is None,
                eight=x["time"] >= EIGHT_BITS,
                overlaps=x["time"] >= OVERLAPS,
                whole=x["time"] >= WHOLE,
                one_row=x["time"] >= ONE_ROW,
                ready=x["time"] >= READY,
                aligned=x["time"] >= ALIGNED,
                in_place=x["time"] >= COPIED,
                chosen=False,
            )


def of_records(records: Sequence[Record], spec: ModelSpec) -> list[RunRow]:
    """The runs among a calibration's rows that belong to this model, each once."""
    by_key: dict[tuple[object, ...], RunRow] = {}
    for record in records:
        gpu, memory, more = record.environment.gpu, record.memory, record.details
        timed = record.outcome == "ok" and record.ttft_s is not None
        if not timed or gpu is None or record.fingerprint != fingerprint(spec):
            continue
        workload = Workload(
            record.context,
            int(more.get("output", SPEED_OUTPUT)),
            batch=int(more.get("batch", 1)),
        )
        by_key[gpu, record.config, workload, record.ttft_s, record.tpot_s] = RunRow(
            model=record.model,
            spec=spec,
            config=Configuration.parse(record.config),
            workload=workload,
            gpu=gpu,
            ttft_s=record.ttft_s,
            tpot_s=record.tpot_s,
            allocated_resident=memory.allocated if memory is not None else None,
            allocated_peak=memory.peak if memory is not None else None,
            reserved_peak=_whole(more.get("reserved_peak")),
            context_bytes=_whole(more.get("context_bytes")),
            device_used=_whole(more.get("device_used")),
        )
    return list(by_key.values())


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def known_spec(record: Record) -> ModelSpec | None:
    """The model of a calibration's rows, where it can be described here and is still the same."""
    try:
        spec = load_model(record.model, offline=True)
    except BadInput:
        return None
    return spec if fingerprint(spec) == record.fingerprint else None


@cache
def _spec(model: str) -> ModelSpec:
    return _shapes().get(model) or load_model(model, offline=True)


@cache
def _shapes() -> dict[str, ModelSpec]:
    """Models that were not run as they are bundled."""
    return {x["model"]: read_model(x["architecture"], x["model"]) for x in _lines(SHAPES)}
