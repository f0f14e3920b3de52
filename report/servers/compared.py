"""Plans of several engines in one document: the one to take, and the others beside it."""

from collections.abc import Sequence
from typing import Any

from ...planner.compare_engines import EnginePlan, take
from ..document import commands_of, plan_document


def compared_document(answers: Sequence[EnginePlan]) -> dict[str, Any]:
    """The plan to take, with `compared` and `because`."""
    chosen, because, why = take(answers)
    assert chosen.plan is not None
    return {
        **plan_document(chosen.plan),
        "because": because,
        "compared": [_row(one, why.get(one.engine)) for one in answers],
    }


def _row(one: EnginePlan, why_not: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"engine": one.engine, "taken": why_not is None, "why_not": why_not}
    empty = ("config", "retention", "low", "total_high", "ttft_s", "tpot_s", "command")
    if one.plan is None:
        return row | dict.fromkeys(empty)
    best = one.plan.recommended
    commands = commands_of(one.plan.request, best)
    run = [c["command"] for c in commands if c["label"] == "Run it"]
    return row | {
        "config": str(best.config),
        "retention": best.accuracy.retention,
        "low": best.accuracy.low,
        "total_high": best.memory.total_high,
        "ttft_s": best.latency.ttft_s if best.latency else None,
        "tpot_s": best.latency.tpot_s if best.latency else None,
        "command": run[0] if run else None,
    }
