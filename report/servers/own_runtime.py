"""What a server's plan loses, or gains, against our own runtime's for the same question."""

from dataclasses import replace
from typing import Any

from ...planner.engines.kvpareto import KVPARETO
from ...planner.errors import KVParetoError
from ...planner.search.recommend import Plan, recommend


def own_runtime(plan: Plan) -> dict[str, Any] | None:
    """Configuration, bytes and retention of our runtime's plan for one length and card, and the
    difference; None where it is not asked (several cards) or has no plan."""
    asked, best = plan.request, plan.recommended
    if not asked.engine.serves or asked.gpus or asked.hardware is None:
        return None
    if KVPARETO.cannot_run(asked.spec, asked.hardware) is not None:
        return None
    workload = replace(asked.workload, lengths=())
    own = replace(asked, engine=KVPARETO, workload=workload, parallel=None, ttft=None, tpot=None)
    try:
        found = recommend(own, explain=False).recommended
    except KVParetoError:
        return None
    return {
        "config": str(found.config),
        "total_high": found.memory.total_high,
        "retention": found.accuracy.retention,
        "low": found.accuracy.low,
        "bytes_more": best.memory.total_high - found.memory.total_high,
        "retention_lost": found.accuracy.retention - best.accuracy.retention,
    }
