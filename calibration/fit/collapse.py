"""From which context on the model itself, and each configuration that was run, is of no use.

Retrieval falls off a cliff at some length, and quantization moves the cliff nearer: what holds at
4k need not at 16k. A plan that goes beyond a break says so.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ...planner.formats.configuration import Configuration
from ..measure.early_stopping import HALF, is_unquantized
from ..records.record_file import DIVERGENCE, LAYERS, Record


def breaking_context(records: Iterable[Record]) -> int | None:
    """The shortest measured context, beyond its best one, at which the unquantized model scores
    less than half of its best, mean over the tasks; None where it never does."""
    scores: dict[int, list[float]] = {}
    for record in records:
        if _is_of_a_task(record) and is_unquantized(Configuration.parse(record.config)):
            scores.setdefault(record.context, []).append(record.score or 0.0)
    means = {context: sum(values) / len(values) for context, values in scores.items()}
    best = max(means, key=lambda context: (means[context], -context), default=0)
    lost = [c for c, values in means.items() if c > best and values < HALF * means[best]]
    return min(lost, default=None)


def broken_configurations(records: Iterable[Record]) -> list[dict[str, Any]]:
    """[{"config", "context"}]: configurations that keep less than half of the unquantized model's
    score, mean over the tasks, at this measured context and all longer ones; of the text's
    probability where the text is so lost that no task was run."""
    kept: dict[str, dict[int, list[Record]]] = {}
    for record in records:
        measured = record.outcome == "ok" and record.retention is not None
        if measured and not is_unquantized(Configuration.parse(record.config)):
            kept.setdefault(record.config, {}).setdefault(record.context, []).append(record)
    broken = []
    for config, by_context in kept.items():
        first = _first_broken({c: _mean(rows) for c, rows in by_context.items()})
        if first is not None:
            broken.append({"config": config, "context": first})
    return broken


def _first_broken(kept: Mapping[int, float]) -> int | None:
    first = None
    for context in sorted(kept, reverse=True):
        if kept[context] >= HALF:
            break
        first = context
    return first


def _mean(rows: list[Record]) -> float:
    on_tasks = [row for row in rows if _is_of_a_task(row)]
    values = [row.retention or 0.0 for row in on_tasks or rows]
    return sum(values) / len(values)


def _is_of_a_task(record: Record) -> bool:
    return record.task not in (DIVERGENCE, LAYERS) and record.score is not None
