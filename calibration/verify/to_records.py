"""The run as rows of the model's calibration, so that the next plan knows of it.

One row `execution` with bytes and seconds, whatever the outcome; a row for each task that was
scored, and for the unquantized scores that were measured for it. Rows of random weights are of
bytes and seconds only. What the profile has already (the same configuration, context, task and
seed) is not written twice, an execution is.
"""

from collections.abc import Sequence
from typing import Any

from ...planner.formats.configuration import Configuration
from ..execution.run_record import Execution
from ..measure.early_stopping import is_unquantized, kind_of
from ..records.record_file import Memory, Record
from ..tasks.scores import Score
from .score_tasks import TaskScore

EXECUTION = "execution"
"""The task, and the kind, of a row that says nothing about accuracy."""


def execution_row(found: Execution, seed: int) -> Record | None:
    """The run's bytes and seconds; None for what is no row: another engine, or a refusal."""
    if found.engine != "kvpareto" or found.outcome == "refused":
        return None
    details = {
        "budget": found.budget,
        "output": found.output,
        "batch": found.batch,
        "random_weights": float(found.random_weights),
        "tpot_p95_s": found.tpot_p95_s,
        "device_used": found.device_used,
        "reserved_peak": found.reserved_peak,
        "context_bytes": found.context_bytes,
    }
    return _row(
        found,
        seed,
        task=EXECUTION,
        kind=EXECUTION,
        outcome=found.outcome,
        reason=found.reason,
        details={name: float(value) for name, value in details.items() if value is not None},
        memory=memory_of(found),
        ttft_s=found.ttft_s,
        tpot_s=found.tpot_s,
    )


def memory_of(found: Execution) -> Memory | None:
    if found.weights is None or found.kv is None:
        return None
    return Memory(
        weights=found.weights,
        kv=found.kv,
        allocated=found.allocated_resident,
        peak=found.allocated_peak,
    )


def task_rows(found: Execution, scored: Sequence[TaskScore], seed: int, ended: str) -> list[Record]:
    """Rows of the configuration's scores that could be judged."""
    return [
        _row(
            found,
            seed,
            **_score(one.task, one.score),
            ended=ended,
            reference=one.reference.value,
            retention=one.retention,
            retention_sd=one.sd,
            memory=memory_of(found),
            ttft_s=found.ttft_s,
            tpot_s=found.tpot_s,
        )
        for one in scored
        if one.reference is not None and one.retention is not None
    ]


def reference_row(
    found: Execution, config: Configuration, task: str, score: Score, seed: int, ended: str
) -> Record:
    """The unquantized model's score of a task."""
    if not is_unquantized(config):
        raise ValueError(f"{config} is quantized")
    return _row(found, seed, **_score(task, score), ended=ended, config=str(config), retention=1.0)


def _score(task: str, score: Score) -> dict[str, Any]:
    return {
        "task": task,
        "kind": kind_of(task),
        "items": score.per_item,
        "score": score.value,
        "stderr": score.stderr,
    }


def _row(found: Execution, seed: int, **values: Any) -> Record:
    """A row of a run's model, place and time, as far as `values` say nothing else."""
    return Record(
        **{
            "model": found.model,
            "fingerprint": found.fingerprint,
            "config": found.config,
            "context": found.context,
            "seed": seed,
            "outcome": "ok",
            "environment": found.environment,
            "started": found.started,
            "ended": found.ended,
            **values,
        }
    )
