"""A promise as a CPU can keep it: of tensors alone.

A plan's overhead is of a GPU: the driver's context, library workspaces, blocks that torch's
allocator holds free. A CPU has none of them, and its total is that of weights, cache and
activations.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...planner.engine import Engine
from ...planner.errors import NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.memory.estimate import MODEL_ERROR
from ...planner.memory.overhead import workspace
from ...planner.models.spec import ModelSpec
from ...planner.search.recommend import Plan, recommend
from ...planner.search.request import Request
from ...planner.units import budget_for, format_bytes
from ...report.saved_plan import Planned


def on_cpu(planned: Planned) -> Planned:
    """The same promise without what only a GPU holds."""
    memory = planned.memory
    tensors = memory.weights + memory.kv + memory.activation
    error = int(MODEL_ERROR * memory.activation)
    sizes = {
        "overhead": 0,
        "total": tensors,
        "total_low": tensors - error,
        "total_high": tensors + error,
    }
    return planned.model_copy(update={"memory": memory.model_copy(update=sizes)})


def gpu_only_bytes(spec: ModelSpec, engine: Engine) -> int:
    """What every plan for a GPU that nobody named keeps free, at most: a CPU's budget reaches that
    much further. Slack that grows with activations is left in, on the safe side."""
    fixed = int(engine.slack(Configuration(), None).fixed[2])
    return engine.context(None).high + workspace(spec, None) + fixed


def recommend_on_cpu(request: Request) -> Plan:
    """The plan for a budget of a CPU's memory; its points still count what a GPU would hold.
    Raises NothingFits in bytes that a CPU takes."""
    beyond = gpu_only_bytes(request.spec, request.engine)
    try:
        return recommend(replace(request, budget=request.budget + beyond))
    except NothingFits as error:
        raise _without_gpu(error, request.budget, beyond) from None


def point_on_cpu(document: Mapping[str, Any]) -> dict[str, Any]:
    """A point of a plan's document without what only a GPU holds."""
    planned = Planned.model_validate({name: document[name] for name in Planned.model_fields})
    memory = on_cpu(planned).memory
    kept = {n: getattr(memory, n) for n in ("overhead", "total", "total_low", "total_high")}
    return {**document, "memory": {**document["memory"], **kept}}


def _without_gpu(error: NothingFits, budget: int, beyond: int) -> NothingFits:
    """The same refusal, of the budget that was asked for and of `beyond` fewer bytes."""
    details: dict[str, Any] = {**error.details, "budget": budget}
    message, hint = error.message, error.hint
    need = details.get("needed_bytes")
    if need is not None:
        details["needed_bytes"] = need - beyond
        shown = {
            format_bytes(need): format_bytes(need - beyond),
            format_bytes(budget + beyond): format_bytes(budget),
        }
        for before, after in shown.items():
            message = message.replace(before, after)
        hint = hint.replace(budget_for(need), budget_for(need - beyond))
    if would_fit := details.get("would_fit"):
        smaller = would_fit["budget_bytes"] - beyond
        typed = {"budget": budget_for(smaller), "budget_bytes": smaller}
        details["would_fit"] = {**would_fit, **typed}
    return NothingFits(message, hint, details)
