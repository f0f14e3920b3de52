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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ....planner.accuracy.calibrations import fingerprint
from ....planner.engine import Engine
from ....planner.engines.kvpareto import KVPARETO
from ....planner.errors import BadInput
from ....planner.formats.configuration import Configuration
from ....planner.load_model import load_model
from ....planner.models.read_config import read_model
from ....planner.models.spec import ModelSpec
from ....planner.workload import Workload
from ....profiles import read
from ...records.record_file import Record
from .engine_history import engine_parts, experts_in_turn, packed_rows_read, prompts_by_tiles

RUNS = (
    *(f"calibrations/{name}_h200.jsonl" for name in ("runs", "verify", "paper")),
    *(f"calibrations/{name}_h200.jsonl" for name in ("layers", "granite4", "speeds")),
)
SINCE = "2026-11-24"  # bench_runtime's rows before were of kernels that are gone
BEFORE = "-pt"  # appended on the host then, which no pass is captured with
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
    engine_parts: Mapping[str, float] = field(default_factory=dict)
    """Fields of LatencyJob that say what the engine could not do yet (engine_history.py)."""
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

    def has(self, part: str) -> bool:
        """Whether the engine had this field of `engine_parts` when it ran."""
        return self.engine_parts.get(part, 1.0) > 0


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
        slower = prompts_by_tiles(x) or packed_rows_read(x, config)
        in_turn = experts_in_turn(x, spec, config)
        yield RunRow(
            model=x["model"],
            spec=spec,
            config=config,
            workload=Workload(x["context"], x["output"], batch=x["batch"]),
            gpu=x["environment"]["gpu"],
            ttft_s=None if slower or in_turn else x.get("ttft_s"),
            tpot_s=x.get("tpot_s"),
            captured="why_eager" not in x,
            engine_parts=engine_parts(x["started"]),
            allocated_resident=x["allocated_resident"],
            allocated_peak=None if in_turn else max(x["peaks"][n] for n in ("prefill", "decode")),
            workspace=x.get("workspace"),
            reserved_peak=x["reserved_peak"],
            context_bytes=x["context_bytes"],
            device_used=x["device_used"],
        )


def sweeps(lines: Iterable[dict[str, Any]]) -> Iterator[RunRow]:
    """Rows of benchmarks/bench_runtime.py and of its neighbours, those of this engine alone. Only
    their seconds are taken: in their bytes is what the allocator kept of the runs before."""
    for x in lines:
        if x["engine"] == "kvpareto":
            config = Configuration.parse(x["config"])
            yield RunRow(
                model=x["model"],
                spec=_spec(x["model"]),
                config=config,
                workload=Workload(x["context"], OUTPUT, batch=x.get("batch", 1)),
                gpu=x["gpu"],
                ttft_s=None if packed_rows_read(x, config) else x.get("ttft_s"),
                tpot_s=x.get("tpot_s"),
                captured=x.get("eager") is None,
                engine_parts=engine_parts(x["time"]),
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
