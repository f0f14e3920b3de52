"""The receipt of a start of vLLM, in the terms of every other verification (docs/verify.md).

vLLM's own sum is what is measured: weights, the profiled activation, what is outside of torch, the
bytes left for the cache and the tokens they hold. Seconds are judged on cards that the speed was
fitted on.
"""

from dataclasses import asdict
from typing import Any

from ...planner.accuracy.prediction import Accuracy
from ...planner.engine import Ends, Interval
from ...planner.engines.vllm.speed import ServingSpeed
from ...planner.engines.vllm.start import BUFFERS, Start
from ...planner.units import format_bytes
from ..verify.judge import Side, Term, retention_of
from .asked import Asked
from .start import StartReading

SCHEMA = 1
WEIGHTS_ERROR = 0.005
"""Of the weights' bytes; a model's code may make buffers beside them, up to start.BUFFERS."""
UNFITTED = "not judged: derived from the datasheet, without a run on this kind of GPU"
NO_PREDICTION = "not predicted for this card"


def receipt(
    asked: Asked,
    promised: Start | None,
    speed: ServingSpeed | None,
    kept: Accuracy,
    found: StartReading,
    tasks: list[dict[str, Any]],
) -> dict[str, Any]:
    """Everything that was promised beside what vLLM said, as a receipt's document has it."""
    terms = [*_memory(promised, found), *_seconds(speed, found)]
    workload = asked.workload
    measured = [task["retention"] for task in tasks if task["retention"] is not None]
    return {
        "schema": SCHEMA,
        **_verdict(terms, tasks, found),
        "wrong": _wrong(terms, tasks, promised, found),
        "model": asked.spec.name,
        "fingerprint": asked.fingerprint,
        "config": str(asked.config),
        "engine": "vllm",
        "context": workload.context,
        "output": workload.output,
        "batch": workload.batch,
        "random_weights": asked.random_weights,
        "device": "cuda",
        "gpu": found.gpu or asked.hardware.name,
        "budget": promised.requested if promised is not None else asked.hardware.memory_bytes,
        "outcome": "ok" if found.started and not found.error else "refused",
        "term": None,
        "cap": {
            "how": "vLLM takes gpu_memory_utilization of the card at its start",
            "budget": found.memory.get("requested"),
            "allowed": None,
            "context": None,
            "margin": None,
            "device_used": None,
            "counted": None,
        },
        "terms": [term.document() for term in terms],
        "peak_phase": None,
        "tasks": tasks,
        "retention": {
            **retention_of(kept, sum(measured) / len(measured) if measured else None),
            "kinds": sorted({task["kind"] for task in tasks if task["retention"] is not None}),
        },
        "corrected": None,
        "rows_written": 0,
        "execution": {
            "engine": f"vllm {found.version}",
            "command": asked.settings.command(asked.spec.name),
            "starts": found.started,
            "promised_to_start": None if promised is None else promised.fits,
            "error": found.error,
            "start_s": found.seconds,
            "memory": dict(found.memory),
            "cache": dict(found.cache),
            "bursts": [asdict(burst) for burst in found.bursts],
            "error_of_bytes": found.digit,
        },
        "notes": _notes(asked, found),
    }


def _verdict(terms: list[Term], tasks: list[dict[str, Any]], found: StartReading) -> dict[str, Any]:
    """Whether the start is `verified`, and the `verdict` in words."""
    if not found.started:
        return {"verified": False, "verdict": "not verified: vLLM does not start"}
    judged = sum(term.side is not None for term in terms)
    worse = sum(term.side == "worse" for term in terms)
    worse += sum(task["side"] == "worse" for task in tasks)
    if worse or found.error:
        said = f"not verified: {worse} of {judged + len(tasks)} numbers are worse than promised"
        return {"verified": False, "verdict": said}
    said = f"verified: vLLM starts and serves as planned, {judged} numbers are as promised"
    return {"verified": True, "verdict": said}


def _wrong(
    terms: list[Term], tasks: list[dict[str, Any]], promised: Start | None, found: StartReading
) -> list[str]:
    """A line for each thing that is other than promised, what ended vLLM first."""
    wrong = [_said(term) for term in terms if term.side in ("worse", "better")]
    wrong += [
        f"{task['task']}: keeps less than promised" for task in tasks if task["side"] == "worse"
    ]
    if not found.started:
        wrong.insert(0, f"vLLM does not start: {found.error}")
    elif promised is not None and not promised.may_fit:
        wrong.insert(0, "vLLM starts, but the plan says that it does not")
    elif found.error:
        wrong.insert(0, f"vLLM stopped: {found.error}")
    return wrong


def _memory(promised: Start | None, found: StartReading) -> list[Term]:
    measured, digit = found.memory, found.digit
    if promised is None:
        names = ("weights", "activation", "other", "cache")
        return [
            Term(_NAMES[n], "bytes", None, None, None, measured.get(n), None, NO_PREDICTION)
            for n in names
        ]
    weights = promised.weights
    room = int(WEIGHTS_ERROR * weights)
    ends: dict[str, Interval] = {
        "weights": Interval(weights, weights - room, weights + room + BUFFERS),
        "activation": promised.activation,
        "other": promised.other,
        "cache": promised.cache,
    }
    terms = [
        _term(_NAMES[name], "bytes", interval, measured.get(name), digit, more=name == "cache")
        for name, interval in ends.items()
    ]
    tokens = promised.tokens
    return [*terms, _term("tokens", "tokens", tokens, found.cache.get("tokens"), 0, more=True)]


_NAMES = {"weights": "weights", "activation": "activation", "other": "overhead", "cache": "kv"}
"""vLLM's terms by the names that every receipt has."""


def _term(
    name: str, unit: Any, ends: Interval, measured: float | None, digit: int, more: bool
) -> Term:
    """`more`: more than promised is better."""
    low, high = ends.low - digit, ends.high + digit
    side: Side | None = None
    if measured is not None:
        above, below = measured > high, measured < low
        better, worse = (above, below) if more else (below, above)
        side = "worse" if worse else "better" if better else "inside"
    note = "" if measured is not None else "vLLM did not report it"
    return Term(name, unit, ends.expected, low, high, measured, side, note)


def _seconds(speed: ServingSpeed | None, found: StartReading) -> list[Term]:
    burst = found.bursts[-1] if found.bursts else None
    rows: tuple[tuple[str, str, Ends | None, float | None], ...] = (
        ("ttft", "seconds", speed.ttft if speed else None, burst.ttft if burst else None),
        ("tpot", "seconds", speed.tpot if speed else None, burst.tpot if burst else None),
        (
            "throughput",
            "tokens per second",
            speed.tokens_per_second if speed else None,
            burst.tokens_per_second if burst else None,
        ),
    )
    terms = []
    for name, unit, ends, measured in rows:
        predicted, low, high = ends if ends is not None else (None, None, None)
        side: Side | None = None
        note = "vLLM did not report it" if measured is None else ""
        if speed is not None and speed.kind != "fitted":
            note = UNFITTED
        elif measured is not None and low is not None and high is not None:
            above, below = measured > high, measured < low
            better, worse = (above, below) if name == "throughput" else (below, above)
            side = "worse" if worse else "better" if better else "inside"
        terms.append(Term(name, unit, predicted, low, high, measured, side, note))  # type: ignore[arg-type]
    return terms


def _said(term: Term) -> str:
    assert term.measured is not None
    assert term.predicted is not None
    off = term.measured - term.predicted
    how = "more" if off > 0 else "less"
    size = format_bytes(int(abs(off))) if term.unit == "bytes" else f"{abs(off):,.3g} {term.unit}"
    return f"{term.name}: {size} {how} than predicted"


def _notes(asked: Asked, found: StartReading) -> list[str]:
    notes = [f"vLLM's own account of its memory, by {found.version or 'an unknown build'}"]
    if found.digit:
        notes.append("its workers reported no bytes: values are from its log, to 0.01 GiB")
    notes += [f"promised for {asked.plan_gpu}"] if asked.plan_gpu not in (None, found.gpu) else []
    if asked.workload.batch > 1:
        notes.append(f"TTFT is the mean over {asked.workload.batch} prompts that arrive together")
    return notes
