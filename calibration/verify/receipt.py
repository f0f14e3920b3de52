"""The receipt, schema 1: what `--json` prints and `--save` writes. docs/verify.md lists its fields.

The verdict is about the promise: it ran within the budget, and no judged number is worse than its
interval. A number better than its interval is a wrong prediction too, and is said first like the
others, but a promise more than kept fails no one's pipeline.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...planner.accuracy.task_kinds import GENERATED_KINDS
from ...planner.formats.without_effect import without_effect
from ...planner.units import format_bytes
from ...report.saved_plan import Planned
from ..execution.memory_cap import MARGIN
from ..execution.run_record import Execution
from .cases import VerificationCase
from .judge import Term
from .score_tasks import TaskScore
from .typed_cases import Unplanned

SCHEMA = 1
NAMES = {
    "weights": "the weights",
    "kv": "the KV cache",
    "activation": "the activations",
    "overhead": "the overhead",
    "total": "the total",
    "allocated_resident": "the allocation after prefill",
    "allocated_peak": "the peak allocation",
    "ttft": "the time to the first token",
    "tpot": "the time for each further token",
}


def receipt(
    question: VerificationCase,
    execution: Execution,
    terms: Sequence[Term],
    scored: Sequence[TaskScore],
    corrected: Mapping[str, Any] | None,
    rows: int,
) -> dict[str, Any]:
    """`rows`: how many rows the calibration got."""
    planned = question.planned
    tasks = [one.document(planned.accuracy) for one in scored]
    kept = execution.outcome == "ok"
    sides = [term.side for term in terms] + [task["side"] for task in tasks]
    verified = kept and "worse" not in sides
    return {
        "schema": SCHEMA,
        "verified": verified,
        "verdict": _verdict(execution, verified, terms, tasks),
        "wrong": [*_failed(execution), *_wrong_terms(terms), *_wrong_tasks(tasks)],
        "model": execution.model,
        "fingerprint": execution.fingerprint,
        "config": execution.config,
        "engine": execution.engine,
        "context": execution.context,
        "output": execution.output,
        "batch": execution.batch,
        "random_weights": execution.random_weights,
        "device": execution.device,
        "gpu": execution.environment.gpu,
        "budget": execution.budget,
        "outcome": execution.outcome,
        "term": execution.term,
        "cap": _cap(execution),
        "terms": [term.document() for term in terms],
        "peak_phase": execution.peak_phase,
        "tasks": tasks,
        "retention": _overall(planned, tasks),
        "corrected": corrected,
        "rows_written": rows,
        "execution": execution.model_dump(mode="json", by_alias=True),
        "notes": [*without_effect(question.config, question.request.workload), *_notes(execution)],
    }


def sweep(
    receipts: Sequence[dict[str, Any]], unplanned: Sequence[Unplanned] = ()
) -> dict[str, Any]:
    """Several receipts of one model, and whether all are verified; what had no plan is said."""
    good = sum(1 for one in receipts if one["verified"])
    none = f"; nothing fits {len(unplanned)} more" if unplanned else ""
    return {
        "schema": SCHEMA,
        "verified": good == len(receipts),
        "verdict": f"{good} of {len(receipts)} verified{none}",
        "model": receipts[0]["model"] if receipts else None,
        "receipts": list(receipts),
        "unplanned": [
            {"budget": one.budget, "context": one.context, "reason": one.error.message}
            for one in unplanned
        ],
    }


def _verdict(
    execution: Execution,
    verified: bool,
    terms: Sequence[Term],
    tasks: Sequence[Mapping[str, Any]],
) -> str:
    sides = [side for side in (*(t.side for t in terms), *(t["side"] for t in tasks)) if side]
    judged = len(sides)
    if execution.outcome != "ok":
        crashed = execution.outcome == "crashed"
        return f"not verified: {'it crashed' if crashed else 'it did not run within the budget'}"
    if not verified:
        return f"not verified: {sides.count('worse')} of {judged} numbers are worse than promised"
    better = sides.count("better")
    more = f", {better} of them better" if better else ""
    if execution.device == "cpu":
        return f"verified: {_judged(terms, tasks)} as promised{more}; the total was not measured"
    return f"verified: it ran within the budget, {judged} numbers are as promised{more}"


def _judged(terms: Sequence[Term], tasks: Sequence[Mapping[str, Any]]) -> str:
    """What was judged, by name; tasks whose promise no score could break are none of it."""
    names = [NAMES[term.name] for term in terms if term.side is not None]
    scored = sum(1 for task in tasks if task["side"] is not None)
    names += [f"retention of {scored} task" + "s" * (scored > 1)] * bool(scored)
    if not names:
        return "nothing could be judged"
    every = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{every} {'is' if len(names) == 1 else 'are'}"


def _failed(execution: Execution) -> list[str]:
    if execution.outcome == "ok":
        return []
    where = {
        "weights": "while the weights were loaded",
        "kv": "while the KV cache was allocated",
        "activation": "for the activations",
        "overhead": "outside torch's allocator",
        None: "",
    }[execution.term]
    phase = f" ({execution.phase})" if execution.phase else ""
    what = "memory ran out " + where if execution.outcome == "out_of_memory" else "it crashed"
    return [f"{what}{phase}: {execution.reason}"]


def _wrong_terms(terms: Sequence[Term]) -> list[str]:
    """A line for each number outside its interval, the worse ones first."""
    lines = []
    for term in sorted(terms, key=lambda term: term.side != "worse"):
        if term.side in (None, "inside") or term.measured is None or term.predicted is None:
            continue
        size = abs(term.measured - term.predicted)
        shown = format_bytes(int(size)) if term.unit == "bytes" else f"{1000 * size:.1f} ms"
        share = f" ({size / term.predicted:.1%})" if term.predicted else ""
        more = "more" if term.side == "worse" else "less"
        lines.append(
            f"{NAMES[term.name]}: {shown}{share} {more} than predicted, outside the interval"
        )
    return lines


def _wrong_tasks(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{task['task']} keeps {100 * task['retention']:.1f} % of its score; predicted: "
        f"{100 * task['predicted_low']:.1f} % to {100 * task['predicted_high']:.1f} %"
        for task in sorted(tasks, key=lambda task: task["side"] != "worse")
        if task["side"] in ("worse", "better")
    ]


def _cap(execution: Execution) -> dict[str, Any]:
    if execution.device == "cpu":
        how = (
            "on a CPU the tensors of weights and cache, with the predicted activation, are held "
            "to the budget"
        )
    else:
        how = (
            "torch's allocator is held to the budget less the CUDA context and a margin; both are "
            "measured again after the first pass; the driver's count is compared at the end"
        )
    return {
        "how": how,
        "budget": execution.budget,
        "allowed": execution.allowed,
        "context": execution.context_bytes,
        "margin": MARGIN if execution.device == "cuda" else None,
        "device_used": execution.device_used,
        "counted": execution.counted,
    }


def _overall(planned: Planned, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The weakest measured kind, the mean over its tasks, beside what was promised of that kind;
    the promise that was shown first where none was measured."""
    kinds: dict[str, list[float]] = {}
    for task in tasks:
        if task["retention"] is not None:
            kinds.setdefault(task["kind"], []).append(task["retention"])
    means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
    generated = {kind: kept for kind, kept in means.items() if kind in GENERATED_KINDS}
    weakest = min(generated or means, key=means.__getitem__, default=planned.accuracy.task)
    promised = planned.accuracy.tasks.get(weakest or "", planned.accuracy)
    return {
        "task": weakest,
        "predicted": promised.retention,
        "low": promised.low,
        "high": promised.high,
        "level": planned.accuracy.level,
        "provenance": planned.accuracy.provenance,
        "measured": means.get(weakest or ""),
        "kinds": sorted(kinds),
    }


def _notes(execution: Execution) -> list[str]:
    notes = []
    if execution.random_weights:
        notes.append("random weights: memory and time are measured, accuracy is not")
    if execution.device == "cuda" and execution.why_eager and execution.engine == "kvpareto":
        notes.append(f"without CUDA graphs: {execution.why_eager}")
    if execution.warmup != "full":
        notes.append("quick: the prompt was run once, after a short warm-up")
    if execution.device == "cuda" and "expandable_segments" not in (execution.allocator or ""):
        notes.append("torch's allocator ran without expandable segments; it may hold more memory")
    return notes
