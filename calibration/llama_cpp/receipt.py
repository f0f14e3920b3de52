"""The receipt of a run of llama.cpp, in the terms of every other verification (docs/verify.md).

Weights and caches are promised to the digit that llama.cpp prints; compute and output buffers
within the error of the graph. Seconds are shown beside their intervals and not judged: they are
derived from bandwidths that no run of this machine is behind.
"""

from typing import Any

from ...planner.accuracy.prediction import Accuracy
from ...planner.engines.llama_cpp.parts import known_graph
from ...planner.engines.llama_cpp.place import GRAPH_ERROR, UNKNOWN_GRAPH_ERROR
from ...planner.formats.configuration import Configuration
from ...planner.placement import Ends, Placement
from ...planner.search.request import Request
from ...planner.units import format_bytes
from ..verify.judge import retention_of
from .breakdown import MIB
from .start import RunReadings

SCHEMA = 1
DIGIT = MIB // 200 + 1
"""Half of the last digit that is printed."""
PADDING = 32
"""Bytes to which each tensor of a file is padded."""
_DERIVED = "not judged: derived from bandwidths, without a run on this machine"


def receipt(
    request: Request,
    config: Configuration,
    placement: Placement,
    kept: Accuracy,
    readings: RunReadings,
    gpu: str | None,
) -> dict[str, Any]:
    """Everything that was promised beside what llama.cpp said."""
    terms = [*_memory(request, placement, readings), *_seconds(placement, readings)]
    worse = [term for term in terms if term["side"] == "worse"]
    wrong = [
        f"{term['name']}: {format_bytes(abs(term['difference']))} "
        f"{'more' if term['side'] == 'worse' else 'less'} than predicted"
        for term in terms
        if term["side"] in ("worse", "better")
    ]
    measured = readings.breakdown.total
    fits = measured <= request.budget or gpu is not None
    if not fits:
        wrong.insert(0, f"its buffers take {format_bytes(measured)}, more than the budget")
    verified = fits and not worse
    judged = sum(term["side"] is not None for term in terms)
    verdict = (
        f"verified: llama.cpp took what was planned, {judged} numbers are as promised"
        if verified
        else f"not verified: {len(worse) + (not fits)} of {judged} numbers are worse than promised"
    )
    workload = request.workload
    return {
        "schema": SCHEMA,
        "verified": verified,
        "verdict": verdict,
        "wrong": wrong,
        "model": request.spec.name,
        "config": str(config),
        "engine": "llama.cpp",
        "context": workload.context,
        "output": workload.output,
        "batch": workload.batch,
        "gpu": gpu,
        "device": "cpu" if gpu is None else "gpu",
        "budget": request.budget,
        "terms": terms,
        "peak_phase": None,
        "tasks": [],
        "retention": retention_of(kept, None),
        "corrected": None,
        "cap": {"margin": None, "how": "no cap: llama.cpp allocates all of it at the start"},
        "command": placement.command,
        "build": readings.version,
        "breakdown": readings.breakdown.row(),
        "peak_resident": readings.resident,
        "rows_written": 0,
        "notes": _notes(readings),
    }


def _memory(request: Request, placement: Placement, readings: RunReadings) -> list[dict[str, Any]]:
    both, printed = (placement.device, placement.host), readings.breakdown
    gguf = request.spec.gguf
    tensors = len(gguf.tensors) if gguf is not None else 0
    error = GRAPH_ERROR if known_graph(request.spec) else UNKNOWN_GRAPH_ERROR
    compute = sum(side.compute for side in both)
    buffers = sum(printed.compute.values()) + printed.output
    slip = int(error * compute) + 2 * DIGIT
    room = {
        "weights": DIGIT * max(1, len(printed.model)) + PADDING * tensors,
        "kv": 2 * DIGIT * max(1, len(printed.cells)),
        "activation": slip,
    }
    sums = {
        "weights": (sum(side.weights for side in both), printed.weights),
        "kv": (sum(side.kv for side in both), printed.kv),
        "activation": (compute, buffers),
    }
    terms = [_term(name, "bytes", *sums[name], room[name]) for name in sums]
    total = sum(predicted for predicted, _ in sums.values())
    return [*terms, _term("total", "bytes", total, printed.total, sum(room.values()))]


def _seconds(placement: Placement, readings: RunReadings) -> list[dict[str, Any]]:
    terms = []
    for name, ends, measured in (
        ("ttft", placement.ttft, readings.ttft),
        ("tpot", placement.tpot, readings.tpot),
    ):
        terms.append(_unjudged(name, ends, measured))
    return terms


def _unjudged(name: str, ends: Ends | None, measured: float | None) -> dict[str, Any]:
    predicted, low, high = ends if ends is not None else (None, None, None)
    both = predicted is not None and measured is not None
    return {
        "name": name,
        "unit": "seconds",
        "predicted": predicted,
        "low": low,
        "high": high,
        "measured": measured,
        "difference": measured - predicted if both else None,  # type: ignore[operator]
        "inside": None,
        "side": None,
        "note": _DERIVED,
    }


def _term(name: str, unit: str, predicted: int, measured: int, room: int) -> dict[str, Any]:
    low, high = predicted - room, predicted + room
    side = "worse" if measured > high else "better" if measured < low else "inside"
    return {
        "name": name,
        "unit": unit,
        "predicted": predicted,
        "low": low,
        "high": high,
        "measured": measured,
        "difference": measured - predicted,
        "inside": side == "inside",
        "side": side,
        "note": "",
    }


def _notes(readings: RunReadings) -> list[str]:
    notes = [f"llama.cpp's own account of its buffers, by {readings.version or 'an unknown build'}"]
    if readings.breakdown.repacked:
        size = format_bytes(readings.breakdown.repacked)
        notes.append(
            f"{size} of the weights are stored again in an order that suits this processor; the "
            "file's pages behind them can be given back"
        )
    if readings.resident:
        notes.append(f"its process held {format_bytes(readings.resident)} at most, Python included")
    return notes
