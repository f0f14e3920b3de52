"""The parts that documents share: the model, a configuration's numbers, placement, warnings."""

from typing import Any

from ..planner.accuracy.prediction import Accuracy
from ..planner.engine import Engine
from ..planner.formats.configuration import Configuration
from ..planner.hardware.gpus import Hardware
from ..planner.latency.predict import Latency
from ..planner.memory.estimate import MemoryEstimate
from ..planner.models.spec import ModelSpec
from ..planner.placement import CardShare, Placement
from ..planner.search.notes import configuration_notes
from ..planner.workload import Workload
from .servers.serving import serving_document

SCHEMA = 1
_MEMORY = (
    "weights",
    "kv",
    "activation",
    "overhead",
    "total",
    "total_low",
    "total_high",
    "allocated_resident",
    "allocated_peak",
    "paper_total",
)


def placed(placement: Placement | None) -> dict[str, Any]:
    """Where the parts of a configuration lie, and how it is started; nothing for engines that keep
    all on one device. Bytes; seconds are beside it."""
    if placement is None:
        return {}
    if placement.serving is not None:
        return {"serving": serving_document(placement.serving)}
    sides = {
        name: {"weights": s.weights, "kv": s.kv, "compute": s.compute, "total": s.total}
        for name, s in (("device", placement.device), ("host", placement.host))
    }
    return {
        "placement": {
            **sides,
            "layers": placement.layers,
            "device_layers": placement.device_layers,
            "host_experts": placement.host_experts,
            "cards": [_card(card) for card in placement.cards],
            "fits": placement.fits,
            "file": placement.file,
            "file_bytes": placement.file_bytes,
            "file_address": placement.file_address,
            "file_repository": placement.file_repository,
            "flags": dict(placement.flags),
            "command": placement.command,
            "ollama": dict(placement.ollama),
        }
    }


def _card(card: CardShare) -> dict[str, Any]:
    low, high = card.ends
    share = card.share
    return {
        "gpu": card.gpu,
        "index": card.index,
        "layers": card.layers,
        "weights": share.weights,
        "kv": share.kv,
        "compute": share.compute,
        "overhead": card.overhead,
        "total": share.total + card.overhead,
        "total_low": low,
        "total_high": high,
        "budget": card.budget,
    }


def heading(spec: ModelSpec, engine: Engine, workload: Workload) -> dict[str, Any]:
    """What was asked of which model."""
    return {
        "schema": SCHEMA,
        "model": spec.name,
        "engine": engine.name,
        **({"front": engine.front} if engine.front else {}),
        "context": workload.context,
        "output": workload.output,
        "batch": workload.batch,
        **_lengths(workload),
        "parameters": spec.parameters,
        "dtype": spec.dtype,
        "parameters_low": spec.parameter_range[0],
        "parameters_high": spec.parameter_range[1],
    }


def _lengths(workload: Workload) -> dict[str, Any]:
    """The prompts' lengths, where they are several."""
    if not workload.lengths:
        return {}
    return {"lengths": [{"tokens": tokens, "part": part} for tokens, part in workload.lengths]}


def point(
    config: Configuration, memory: MemoryEstimate, accuracy: Accuracy, latency: Latency | None
) -> dict[str, Any]:
    """One configuration's numbers."""
    return {
        "config": str(config),
        "memory": {
            **{name: getattr(memory, name) for name in _MEMORY},
            **_range(memory, "weights"),
            **_range(memory, "kv"),
        },
        "kv_bytes_per_token": memory.kv_bytes_per_token,
        **_range(memory, "kv_bytes_per_token"),
        "kv_fixed_bytes": memory.kv_fixed_bytes,
        **_range(memory, "kv_fixed_bytes"),
        "accuracy": _accuracy(accuracy),
        "ttft_s": latency.ttft_s if latency else None,
        "tpot_s": latency.tpot_s if latency else None,
        "latency": _latency(latency) if latency else None,
    }


def _range(memory: MemoryEstimate, name: str) -> dict[str, int]:
    """The ends of a term over all readings of the model; the term itself where there is one."""
    low, high = memory.range_of(name)
    return {f"{name}_low": low, f"{name}_high": high}


def warnings_of(
    spec: ModelSpec,
    config: Configuration,
    engine: Engine,
    workload: Workload,
    memory: MemoryEstimate,
    accuracy: Accuracy,
    hardware: Hardware | None,
) -> list[str]:
    """What makes the numbers less sure than they look, each once."""
    obstacle = engine.cannot_run(spec, hardware)
    lines = [
        *spec.warnings,
        *map(str, spec.bounds),
        *configuration_notes(spec, config, workload, engine),
        *([f"planned only: {obstacle}"] if obstacle is not None else []),
        *memory.notes,
        *accuracy.breaks,
        *accuracy.notes,
    ]
    return list(dict.fromkeys(lines))


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "retention": accuracy.retention,
        "low": accuracy.low,
        "high": accuracy.high,
        "level": accuracy.level,
        "provenance": accuracy.provenance,
        "task": accuracy.task,
        "tasks": {
            name: {"retention": task.retention, "low": task.low, "high": task.high}
            for name, task in accuracy.tasks.items()
        },
    }


def _latency(latency: Latency) -> dict[str, Any]:
    return {
        "kind": latency.kind,
        "ttft_low_s": latency.ttft_low,
        "ttft_high_s": latency.ttft_high,
        "tpot_low_s": latency.tpot_low,
        "tpot_high_s": latency.tpot_high,
    }
