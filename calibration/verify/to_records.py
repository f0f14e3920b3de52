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


def execution_row(execution: Execution, seed: int) -> Record | None:
    """The run's bytes and seconds; None for what is no row: another engine, or a refusal."""
    if execution.engine != "kvpareto" or execution.outcome == "refused":
        return None
    details = {
        "budget": execution.budget,
        "output": execution.output,
        "batch": execution.batch,
        "random_weights": float(execution.random_weights),
        "tpot_p95_s": execution.tpot_p95_s,
        "device_used": execution.device_used,
        "reserved_peak": execution.reserved_peak,
        "context_bytes": execution.context_bytes,
    }
    return _row(
        execution,
        seed,
        task=EXECUTION,
        kind=EXECUTION,
        outcome=execution.outcome,
        reason=execution.reason,
        details={name: float(value) for name, value in details.items() if value is not None},
        memory=memory_of(execution),
        ttft_s=execution.ttft_s,
        tpot_s=execution.tpot_s,
    )


def memory_of(execution: Execution) -> Memory | None:
    if execution.weights is None or execution.kv is None:
        return None
    return Memory(
        weights=execution.weights,
        kv=execution.kv,
        allocated=execution.allocated_resident,
        peak=execution.allocated_peak,
    )


def task_rows(
    execution: Execution, scored: Sequence[TaskScore], seed: int, ended: str
) -> list[Record]:
    """Rows of the configuration's scores that could be judged."""
    return [
        _row(
            execution,
            seed,
            **_score(one.task, one.score),
            ended=ended,
            reference=one.reference.value,
            retention=one.retention,
            retention_sd=one.sd,
            memory=memory_of(execution),
            ttft_s=execution.ttft_s,
            tpot_s=execution.tpot_s,
        )
        for one in scored
        if one.reference is not None and one.retention is not None
    ]


def reference_row(
    execution: Execution, config: Configuration, task: str, score: Score, seed: int, ended: str
) -> Record:
    """The unquantized model's score of a task."""
    if not is_unquantized(config):
        raise ValueError(f"{config} is quantized")
    return _row(
        execution, seed, **_score(task, score), ended=ended, config=str(config), retention=1.0
    )


def _score(task: str, score: Score) -> dict[str, Any]:
    return {
        "task": task,
        "kind": kind_of(task),
        "items": score.per_item,
        "score": score.value,
        "stderr": score.stderr,
    }


def _row(execution: Execution, seed: int, **values: Any) -> Record:
    """A row of a run's model, place and time, as far as `values` say nothing else."""
    return Record(
        **{
            "model": execution.model,
            "fingerprint": execution.fingerprint,
            "config": execution.config,
            "context": execution.context,
            "seed": seed,
            "outcome": "ok",
            "environment": execution.environment,
            "started": execution.started,
            "ended": execution.ended,
            **values,
        }
    )
