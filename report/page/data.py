"""What the page draws, as one JSON document: a plan, and its answers at other contexts and budgets.

Every number is the planner's own, as `plan --json` and `estimate --json` print it; the page
chooses among them and computes none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...planner.formats.configuration import Configuration
from ...planner.search.evaluate import Point
from ...planner.search.request import Request
from ...planner.search.sweep import (
    ContextAnswers,
    PlacedAnswers,
    budgets_around,
    contexts_of,
    over_chunks,
    over_contexts,
    placed_sweep,
    sweep,
)
from ..document_parts import placed
from ..servers.serving import serves_line

_MEMORY = ("weights", "kv", "activation", "overhead", "total", "total_low", "total_high")
_BUDGETS, _PLACED_BUDGETS = 25, 7
"""Budgets to choose among; each asks an engine that fills host memory too for a plan of its own."""
_SECONDS = ("ttft_s", "tpot_s", "ttft_low", "ttft_high", "tpot_low", "tpot_high")


def page_data(
    plans: Sequence[tuple[Mapping[str, Any], Request | None]],
    receipts: Sequence[Mapping[str, Any]] = (),
    *,
    is_live: bool = False,
) -> dict[str, Any]:
    """The page's document. A plan without a Request is drawn from its own frontier alone. In a
    live page (`is_live`) an engine that places is asked for what was typed alone: each budget
    would be a plan of its own, and a person who types waits."""
    return {
        "schema": 1,
        "plans": [_plan(document, request, is_live) for document, request in plans],
        "receipts": [dict(receipt) for receipt in receipts],
    }


def _plan(document: Mapping[str, Any], request: Request | None, is_live: bool) -> dict[str, Any]:
    kept = {key: value for key, value in document.items() if key not in ("frontier", "shown")}
    best = document["recommended"]
    shown = [best, *(document[step] for step in ("next_up", "next_down") if document.get(step))]
    named = {"recommended": best["config"], "document": kept}
    if request is None:
        frontier = [_row_of(p, document["context"]) for p in [*document.get("frontier", []), best]]
        alone = {"context": document["context"], "points": _once(frontier), "recommended": None}
        return {**named, "budgets": [document["budget"]], "answers": [alone], "configs": []}
    places, contexts = request.engine.places, contexts_of(request)
    if not places:
        budgets = budgets_around(request.budget, _BUDGETS)
        answers = [_answers(one) for one in sweep(request, contexts, budgets)]
    else:
        budgets = [request.budget] if is_live else budgets_around(request.budget, _PLACED_BUDGETS)
        asked = [request.workload.context] if is_live else _thinned(request, contexts)
        answers = [_placed(one) for one in placed_sweep(request, asked, budgets)]
    configs = [Configuration.parse(point["config"]) for point in shown]
    return {
        **named,
        "budgets": budgets,
        "answers": answers,
        "configs": [
            {
                "config": str(config),
                "over_contexts": [_row(p) for p in over_contexts(request, config, contexts)],
                "over_chunks": [_row(p) for p in over_chunks(request, config)],
            }
            for config in dict.fromkeys(configs)
        ],
    }


def _answers(one: ContextAnswers) -> dict[str, Any]:
    return {
        "context": one.context,
        "points": [_row(point) for point in one.points],
        "recommended": one.recommended,
    }


def _placed(one: PlacedAnswers) -> dict[str, Any]:
    by_budget = [
        {"points": [_row(point) for point in points], "recommended": index}
        for points, index in one.by_budget
    ]
    return {"context": one.context, "by_budget": by_budget}


def _thinned(request: Request, contexts: Sequence[int]) -> list[int]:
    """Four of the contexts, and the one that was asked."""
    step = max(1, len(contexts) // 3)
    return sorted({*contexts[::-step][:4], request.workload.context})


def _row(point: Point) -> dict[str, Any]:
    """One configuration at one context, flat: bytes, fractions, seconds."""
    memory, kept, seconds = point.memory, point.accuracy, point.latency
    return {
        "config": str(point.config),
        "context": point.workload.context,
        "chunk": point.config.chunk,
        **{name: getattr(memory, name) for name in _MEMORY},
        "retention": kept.retention,
        "low": kept.low,
        "high": kept.high,
        "provenance": kept.provenance,
        "tasks": {name: [t.retention, t.low, t.high] for name, t in kept.tasks.items()},
        **{name: getattr(seconds, name) if seconds else None for name in _SECONDS},
        **_places(point),
    }


def _places(point: Point) -> dict[str, Any]:
    """Where an engine that fills host memory puts it: bytes there, layers on the device, and how
    it is started."""
    placement = point.placement
    if placement is None:
        return {}
    split = {
        "host": placement.host.total,
        "layers": f"{placement.device_layers} of {placement.layers}",
    }
    serving = placement.serving
    return {
        **(split if placement.host.total else {}),
        **({"serves": serves_line(placed(placement))} if serving is not None else {}),
        "fits": placement.fits,
        "command": placement.command,
    }


def _row_of(point: Mapping[str, Any], context: int) -> dict[str, Any]:
    """`_row` of a point as a saved plan holds it."""
    memory, kept, seconds = point["memory"], point["accuracy"], point.get("latency") or {}
    return {
        "config": point["config"],
        "context": context,
        "chunk": None,
        **{name: memory[name] for name in _MEMORY},
        "retention": kept["retention"],
        "low": kept["low"],
        "high": kept["high"],
        "provenance": kept["provenance"],
        "tasks": {n: [t["retention"], t["low"], t["high"]] for n, t in kept["tasks"].items()},
        "ttft_s": point.get("ttft_s"),
        "tpot_s": point.get("tpot_s"),
        **{name: seconds.get(f"{name}_s") for name in _SECONDS[2:]},
    }


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["config"]: row for row in rows}.values())
