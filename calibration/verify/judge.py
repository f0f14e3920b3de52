"""Each promised number beside the measured one: inside its interval, better, or worse.

Weights and the cache are promised to the byte. The activation's interval is the planner's error of
it; the allocator's numbers have that and the blocks that torch does not split (UNSPLIT). Overhead
and total have the interval that was promised, and seconds that of the latency's profile.

Measured activation is the allocator's high-water mark of prefill and decoding less the tensors of
weights and cache and less library workspaces; overhead is whatever else the device held, so that
the terms sum to the total. What was not measured is not judged: on a CPU that is the activation,
the overhead, and the total, of which they are a part.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...planner.accuracy.prediction import Accuracy
from ...planner.memory.estimate import MODEL_ERROR
from ...report.saved_plan import Planned, SavedSpeed

if TYPE_CHECKING:  # whoever has an execution has torch; receipts of llama.cpp need none
    from ..execution.run_record import Execution

UNSPLIT = 0.006
"""Of allocated bytes: the worst in 188 measured runs was 0.0052 (docs/memory.md)."""

Side = Literal["inside", "better", "worse"]


@dataclass(frozen=True)
class Term:
    """`side` is None where nothing is judged, and then `note` says why."""

    name: str
    unit: Literal["bytes", "seconds", "fraction", "tokens", "tokens per second"]
    predicted: float | None
    low: float | None
    high: float | None
    measured: float | None
    side: Side | None
    note: str = ""

    def document(self) -> dict[str, Any]:
        both = self.measured is not None and self.predicted is not None
        return {
            "name": self.name,
            "unit": self.unit,
            "predicted": self.predicted,
            "low": self.low,
            "high": self.high,
            "measured": self.measured,
            "difference": self.measured - self.predicted if both else None,  # type: ignore[operator]
            "inside": None if self.side is None else self.side == "inside",
            "side": self.side,
            "note": self.note,
        }


def retention_of(kept: Accuracy, measured: float | None) -> dict[str, Any]:
    """A receipt's retention: what was promised of its kind of task, and what was measured."""
    return {
        "task": kept.task,
        "predicted": kept.retention,
        "low": kept.low,
        "high": kept.high,
        "level": kept.level,
        "provenance": kept.provenance,
        "measured": measured,
    }


def memory_terms(planned: Planned, execution: "Execution") -> list[Term]:
    """The terms of memory, in the planner's order."""
    memory = planned.memory
    error = int(MODEL_ERROR * memory.activation)
    tensors = memory.weights + memory.kv + memory.activation
    exact = {"weights": execution.weights, "kv": execution.kv}
    terms = [
        _bytes(name, getattr(memory, name), 0, 0, measured) for name, measured in exact.items()
    ]
    activation, overhead, total, note = _rest(execution)
    terms += [
        _bytes("activation", memory.activation, error, error, activation, note),
        _between(
            "overhead",
            memory.overhead,
            memory.total_low - tensors + error,
            memory.total_high - tensors - error,
            overhead,
            note,
        ),
        _between("total", memory.total, memory.total_low, memory.total_high, total, note),
    ]
    for name in ("allocated_resident", "allocated_peak"):
        if execution.device == "cpu":  # it has no allocator, and its total no libraries' workspace
            terms.append(Term(name, "bytes", None, None, None, None, None, note))
            continue
        expected = getattr(memory, name)
        slack = error + int(UNSPLIT * expected)
        terms.append(_bytes(name, expected, slack, slack, getattr(execution, name)))
    return terms


def latency_terms(
    planned: Planned, execution: "Execution", known_gpu: bool, same_gpu: bool
) -> list[Term]:
    """TTFT and TPOT. Judged where the promise is for the GPU that they were measured on."""
    latency = planned.latency if same_gpu else None
    if execution.device == "cpu":
        note = "a CPU's time is not predicted"
    elif not known_gpu:
        note = f"{execution.environment.gpu} is not among the known GPUs: its time is not predicted"
    else:
        note = "" if latency is not None else "no time was predicted for this GPU"
    return [
        _seconds("ttft", planned.ttft_s, latency, execution.ttft_s, note),
        _seconds("tpot", planned.tpot_s, latency, execution.tpot_s, note),
        Term(
            "tpot_p95", "seconds", None, None, None, execution.tpot_p95_s, None,
            "only the median is predicted",
        ),
    ]  # fmt: skip


def judge(measured: float, low: float, high: float) -> Side:
    """For what is better when it is less."""
    if measured > high:
        return "worse"
    return "better" if measured < low else "inside"


def _rest(execution: "Execution") -> tuple[int | None, int | None, int | None, str]:
    """Measured activation, overhead and total, and a word where they are not."""
    if execution.device == "cpu":
        return None, None, None, "not measured on a CPU: it has no allocator statistics"
    if execution.device_used is None or execution.weights is None or execution.kv is None:
        return None, None, execution.device_used, "the run ended before this"
    tensors = execution.weights + execution.kv
    peak = max(execution.peaks.get(name, 0) for name in ("prefill", "decode"))
    activation = peak - tensors - (execution.workspace or 0)
    return activation, execution.device_used - tensors - activation, execution.device_used, ""


def _bytes(
    name: str, predicted: int, below: int, above: int, measured: int | None, note: str = ""
) -> Term:
    return _between(name, predicted, predicted - below, predicted + above, measured, note)


def _between(
    name: str, predicted: int, low: int, high: int, measured: int | None, note: str = ""
) -> Term:
    side = None if measured is None else judge(measured, low, high)
    if side is None and not note:
        note = "the run ended before this"
    return Term(name, "bytes", predicted, low, high, measured, side, "" if side else note)


def _seconds(
    name: str,
    predicted: float | None,
    latency: SavedSpeed | None,
    measured: float | None,
    note: str,
) -> Term:
    if latency is None or predicted is None:
        return Term(name, "seconds", None, None, None, measured, None, note)
    low, high = getattr(latency, f"{name}_low_s"), getattr(latency, f"{name}_high_s")
    side = None if measured is None else judge(measured, low, high)
    late = "" if side else "the run ended before this"
    return Term(name, "seconds", predicted, low, high, measured, side, late)
