"""The error where nothing may be recommended: what is missing, by how much, and what would fit.

Two answers: nothing usable fits the budget, or what fits is not safe (the lower end of its
predicted retention keeps too little). The second names the risky point, the longest context at
which something is safe, and the memory that would be needed.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import BadInput, NothingFits
from ..formats.configuration import Configuration
from ..units import format_bytes, format_tokens
from . import choose as choice
from .choose import USABLE
from .evaluate import Point
from .host_memory import budget_that_holds, room_hints, typed_budget, typed_host_memory
from .longest_safe import longest_safe, safe_fitting
from .max_context import max_context_of
from .placed.questions import Table, evaluate_request, needed_bytes
from .request import Request

STEP = 256
"""Tokens that the longest safe context is looked for in; each try evaluates the whole space."""
SHORT = 1024
"""Tokens: who asked for more is not helped by a context of fewer."""


def infeasible_error(request: Request, table: Table, fitting: np.ndarray) -> NothingFits:
    """The error to raise."""
    if (fitting & (table.points.retention >= USABLE)).any():
        return _nothing_safe(request, table, fitting)
    return _nothing_usable(request, table)


def _nothing_safe(request: Request, table: Table, fitting: np.ndarray) -> NothingFits:
    """Something fits, but none of it is safe."""
    points, loss = table.points, request.accepted_loss
    chosen = choice.choose(points, fitting, request.objective, None, risk=True)
    if chosen is None or loss is None:  # a loss that was accepted, and is too small even so
        return _nothing_usable(request, table)
    (risky,) = table.points_at([chosen.index])
    kept, task = risky.accuracy, risky.accuracy.task.replace("_", " ")
    hints, details = _safe_elsewhere(request, table, loss)
    held = points.low[fitting & points.allowed & (points.retention >= USABLE)].max(initial=0.0)
    if held >= USABLE:
        hints.append(f"--max-loss {np.ceil(1000 * (1 - held)) / 10:.1f}%")
    others, found = _engines_with_host_memory(request)
    by_prediction = points.allowed & (points.retention >= 1 - loss)
    beyond = request.max_loss is not None and not (fitting & by_prediction).any()
    risk = "--accept-risk without --max-loss" if beyond else "--accept-risk"
    hints += [*others, f"{risk}, to run it all the same"]
    return NothingFits(
        f"nothing is safe here: none that fits keeps {1 - loss:.1%} of {task} at the lower end of "
        f"its interval; risky: {risky.config}, predicted to keep {kept.retention:.1%}, at least "
        f"{kept.low:.1%}",
        "this would do: " + "; or ".join(hints),
        {**_asked(request), **details, **found, "risky": _numbers(risky)},
    )


def _safe_elsewhere(
    request: Request, table: Table, loss: float
) -> tuple[list[str], dict[str, Any]]:
    """A number of sequences, a budget and a context at which something is safe, in words and as
    fields."""
    points, hints = table.points, list[str]()
    details: dict[str, Any] = dict.fromkeys(
        ("needed_bytes", "needed_config", "safe_batch", "safe_context", "safe_context_config")
    )
    everywhere = np.ones(len(points.memory), dtype=bool)
    smallest = choice.choose(points, everywhere, "memory", loss)
    if smallest is not None:
        need = int(points.memory[smallest.index])
        config = str(table.space.configuration(smallest.index))
        fewer = _most_sequences(request, table.space.configuration(smallest.index))
        details |= {"needed_bytes": need, "needed_config": config, "safe_batch": fewer}
        hints += [f"--{request.at_once} {fewer}, for {config}"] * (fewer is not None)
        room = room_hints(request, table.space.configuration(smallest.index), need)
        hints += [f"{each}, for {config}" for each in room]
    longest = _longest_safe(request)
    if longest is not None:
        context, config = longest
        details |= {"safe_context": context, "safe_context_config": config}
        hints.append(f"--context {context} ({format_tokens(context)} tokens), for {config}")
    return hints, details


def _longest_safe(request: Request) -> tuple[int, str] | None:
    """The longest context, in steps, at which something usual is safe, and what is recommended
    there; else at which anything is."""
    tables = longest_safe(request, request.workload.context - 1, STEP)
    for usual, table in zip((True, False), tables, strict=True):
        if table is None:
            continue
        fitting = safe_fitting(request, table, usual=usual)
        chosen = choice.choose(table.points, fitting, request.objective, request.accepted_loss)
        if chosen is not None:
            return table.workload.context, str(table.space.configuration(chosen.index))
    return None


def _nothing_usable(request: Request, table: Table) -> NothingFits:
    """Nothing that is usable, and loses no more than is accepted, fits, or exists."""
    points, loss = table.points, request.accepted_loss
    accepted = points.retention >= USABLE
    if loss is not None:
        safe = choice.safe_points(points, loss)
        by_prediction = accepted & (points.retention >= 1 - loss)
        accepted = by_prediction if request.accept_risk and not safe.any() else safe
    left = np.flatnonzero(accepted)
    if not len(left):
        return _nothing_keeps_enough(request, table)
    return _nothing_small_enough(request, table, int(left[np.argmin(points.memory[left])]))


def _nothing_keeps_enough(request: Request, table: Table) -> NothingFits:
    """No configuration keeps what is asked, in however much memory."""
    (point,) = table.points_at([int(np.argmax(table.points.low))])
    kept = point.accuracy
    said = f"no configuration is sure to lose at most {request.accepted_loss or 0:.1%}"
    hint = "accept a larger --max-loss"
    if kept.retention < USABLE:
        said = "no configuration is predicted to keep half of the score"
        hint = "take a checkpoint of more bits"
        if request.spec.quantization is not None:
            from ..models.quantization.original import (
                plan_of_original,  # on the way to an error alone
            )

            hint += f"; {plan_of_original(request.spec)}"
    return NothingFits(
        f"{said}; the best, {point.config}, may lose {1 - kept.low:.1%}",
        hint,
        {**_asked(request), "best": _numbers(point), "least_loss": float(1 - kept.low)},
    )


def _nothing_small_enough(request: Request, table: Table, smallest: int) -> NothingFits:
    """Point `smallest` of the table is the smallest that keeps enough, and more than the budget."""
    need = int(table.points.memory[smallest])
    config = table.space.configuration(smallest)
    context, batch = _smaller_workloads(request, config)
    shorter = None if context is None else f"--context {context} ({format_tokens(context)} tokens)"
    longest = _longest_safe(request)
    if longest is not None and longest[0] > (context or 0):  # what is usable here costs more
        context = longest[0]
        shorter = f"--context {context} ({format_tokens(context)} tokens), for {longest[1]}"
    if context is not None and context < min(SHORT, request.workload.context):
        context = shorter = None
    holds = budget_that_holds(request, config, need)
    would_fit: dict[str, Any] = {
        "budget": None if holds is None else typed_budget(request, holds),
        "budget_bytes": need if holds is None else holds,
        "context": context,
        "batch": batch,
    }
    would_fit["ram"] = typed_host_memory(request, config, need)
    fewer = f"--{request.at_once} {batch}"
    hints = [fewer] * (batch is not None) + room_hints(request, config, need)
    if shorter is not None:
        hints.append(shorter)
    others, found = _engines_with_host_memory(request)
    hints += others
    most, unsure = "up to ", ""
    if request.spec.ends:  # judged by the largest of the readings
        most, unsure = "at most ", f" ({request.spec.model_type} is not known)"
    asked = request.max_loss
    what = "nothing fits" if asked is None else f"nothing that loses at most {asked:.1%} fits"
    lacks = (
        f"needs {most}{format_bytes(need)}, {format_bytes(need - request.budget)} more than the "
        f"budget of {format_bytes(request.budget)}{unsure}"
    )
    if request.ram is not None and need == request.budget + 1:
        lacks = f"leaves more to host memory than its {format_bytes(request.ram)}{unsure}"
    return NothingFits(
        f"{what}: the smallest usable configuration, {config}, {lacks}",
        "this would fit: " + "; or ".join(hints),
        {
            **_asked(request),
            "needed_bytes": need,
            "missing_bytes": need - request.budget,
            "needed_config": str(config),
            "would_fit": would_fit,
            **found,
        },
    )


def _engines_with_host_memory(request: Request) -> tuple[list[str], dict[str, Any]]:
    """What engines that may leave layers in host memory would run here, in words and as fields."""
    from ..engines import all_engines  # only on the way to an error

    hints, elsewhere = [], []
    for engine in all_engines():
        if not engine.places or request.engine.places:
            continue
        if engine.cannot_run(request.spec, request.hardware) is not None:
            continue
        try:
            asked = replace(request, engine=engine, host_only=request.hardware is None)
            table = evaluate_request(asked)
        except BadInput:  # it cannot be asked so: vLLM takes a card that is named, and fewer users
            continue
        how = request.objective, request.accepted_loss, request.accept_risk
        chosen = choice.choose(table.points, table.points.memory <= request.budget, *how)
        if chosen is None:
            continue
        (best,) = table.points_at([chosen.index])
        where, placement = "", best.placement
        if placement is not None and placement.on_host_only:
            where = " on the processor"
        elif placement is not None and placement.host.total:
            layers = f"{placement.device_layers} of {placement.layers} layers"
            where = f" ({layers} on the device, {format_bytes(placement.host.total)} on the host)"
        of = " of the original model" if engine.takes_original(request.spec) else ""
        hints.append(f"--engine {engine}, for {best.config}{of}{where}")
        elsewhere.append({"engine": engine.name, "config": str(best.config)})
    return hints, {"elsewhere": elsewhere}


def _asked(request: Request) -> dict[str, Any]:
    return {
        "model": request.spec.name,
        "budget": request.budget,
        "context": request.workload.context,
        "max_loss": request.accepted_loss,
        "task": request.task,
    }


def _numbers(point: Point) -> dict[str, Any]:
    kept = point.accuracy
    return {
        "config": str(point.config),
        "total_high": point.memory.total_high,
        "retention": kept.retention,
        "low": kept.low,
        "high": kept.high,
        "task": kept.task,
        "provenance": kept.provenance,
    }


def _smaller_workloads(request: Request, config: Configuration) -> tuple[int | None, int | None]:
    """The longest context and the largest batch with which this configuration fits; None where no
    smaller one does."""
    longest = max_context_of(request, config)
    shorter = longest is not None and longest.context < request.workload.context
    context = longest.context if longest is not None and shorter else None
    return context, _most_sequences(request, config)


def _most_sequences(request: Request, config: Configuration) -> int | None:
    """The largest smaller batch with which this configuration fits; None where there is none."""
    low, high = 0, request.workload.batch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(request, config, middle) else (low, middle)
    return low or None


def _fits(request: Request, config: Configuration, batch: int) -> bool:
    workload = replace(request.workload, batch=batch)
    return needed_bytes(request, config, workload) <= request.budget
