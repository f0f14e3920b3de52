"""The longest context that fits: of one configuration, and of all that may be recommended.

Of one, by bisection on the memory model. Of all, by bisection on the whole space: a context is
possible where anything that fits there is safe, and in time where times were asked for. Neither
memory nor what is kept nor the time improves as the context grows, up to the rounding of token
blocks and of the last chunk.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..accuracy import predict as accuracy
from ..errors import NothingFits
from ..formats.configuration import Configuration
from ..light_dataclass import dataclass
from ..units import budget_for
from ..workload import Workload, default_context
from . import choose as choice
from .bisection import last
from .evaluate import Point
from .longest_safe import STEP, longest_safe, safe_fitting
from .placed.questions import (
    Table,
    evaluate_request,
    expected_seconds,
    needed_bytes,
    requested_point,
)
from .request import Request
from .targets import check_predicted, has_targets, in_time, keeps_time

LONGEST = 2**24
"""Where the search ends for models that do not say how much context they were made for."""
_TRIED = 8  # smallest configurations of the longest context, each taken to its own last token


@dataclass(frozen=True)
class MaxContext:
    """`context` prompt tokens (and the request's output) fit; `point` is the plan there.

    `limited_by`: what ends it: "memory"; "model", the model's own limit; "accuracy", beyond which
    the lower end of retention keeps too little; "time", beyond which it is slower than was asked;
    or "search", where no longer one was looked for.
    """

    context: int
    limited_by: str
    point: Point

    @property
    def limited_by_model(self) -> bool:
        return self.limited_by == "model"


def longest_of_model(request: Request) -> int:
    """Prompt tokens that the model was made for, less the output. Raises BadInput for an output
    that leaves none."""
    longest = request.spec.max_context or LONGEST
    return default_context(request.workload.output, longest, longest)


@dataclass(frozen=True)
class _Longest:
    """As MaxContext, of a configuration whose plan there was not made."""

    config: Configuration
    context: int
    limited_by: str

    def planned(self, request: Request) -> MaxContext:
        workload = replace(request.workload, context=self.context)
        point = requested_point(request, self.config, workload)
        return MaxContext(self.context, self.limited_by, point)


def max_context_of(request: Request, config: Configuration) -> MaxContext | None:
    """The longest context at which this configuration fits the budget, is safe, and in time where
    times were asked for; None: there is none. Where it is not safe with one token either, safety is
    left out of it."""
    found = _longest_of(request, config)
    return found.planned(request) if found is not None else None


def _longest_of(request: Request, config: Configuration) -> _Longest | None:
    spec = request.spec
    most = longest_of_model(request)

    def at(context: int) -> Workload:
        return replace(request.workload, context=context)

    def fits(context: int) -> bool:
        return needed_bytes(request, config, at(context)) <= request.budget

    def safe(context: int) -> bool:
        loss = request.accepted_loss
        if loss is None or request.accept_risk:
            return True
        return _kept_at_least(request, config, context) >= 1 - loss

    def quick(steps: int) -> bool:
        workload = at(min(steps * STEP, longest))
        return keeps_time(request, expected_seconds(request, config, workload))

    longest = last(fits, most)
    if not longest:
        return None
    limit = "memory"
    if longest == most:
        limit = "model" if spec.max_context is not None else "search"
    if not safe(longest) and safe(1):
        longest, limit = last(safe, longest), "accuracy"
    steps = -(-longest // STEP)
    if has_targets(request) and not quick(steps):
        longest, limit = last(quick, steps) * STEP, "time"
    return _Longest(config, longest, limit) if longest else None


def _kept_at_least(request: Request, config: Configuration, context: int) -> float:
    """The lower end of what is kept."""
    spec = request.engine.dequantized(request.spec)
    return accuracy.predict(spec, config, context, task=request.task).low


def max_contexts(request: Request) -> list[MaxContext]:
    """Longest contexts of the configurations that may be recommended, longest first: the longest
    of all, the longest of those that people run, and what keeps more or prefills in longer chunks
    at the price of context. Raises NothingFits if none has any."""
    most = longest_of_model(request)
    if has_targets(request):
        check_predicted(request, evaluate_request(_at(request, 1)))
    tables = longest_safe(request, most)
    usable = [table for table in tables if table is not None]
    if not usable:
        raise _nowhere(request)
    configs: dict[Configuration, None] = {}
    recommended = [_recommended(request, table) for table in usable]
    configs |= dict.fromkeys(config for config in recommended if config is not None)
    always = list(configs)
    for table in usable:
        fitting = np.flatnonzero(safe_fitting(request, table, usual=table is tables[0]))
        smallest = fitting[np.argsort(table.points.memory[fitting], kind="stable")][:_TRIED]
        configs |= dict.fromkeys(table.space.configuration(int(i)) for i in smallest)
    # What else is good where less context would do: at the longest, at what was asked, at a half.
    known = {table.workload.context: table for table in usable}
    longest = usable[-1].workload.context
    for context in {longest, max(1, longest // 2), min(request.workload.context, most)}:
        table = known.get(context) or evaluate_request(_at(request, context))
        safe = choice.safe_points(table.points, request.accepted_loss) & table.points.usual
        safe &= in_time(request, table)
        frontier = choice.frontier(table.points, safe if safe.any() else None)
        shown = choice.spread(table.points, frontier, [])
        configs |= dict.fromkeys(table.space.configuration(i) for i in shown)
    contexts = [x for config in configs if (x := _longest_of(request, config))]
    return [one.planned(request) for one in _undominated(request, contexts, always)]


def _recommended(request: Request, table: Table) -> Configuration | None:
    """What is recommended at a space's context."""
    fitting = (table.points.memory <= request.budget) & in_time(request, table)
    how = request.objective, request.accepted_loss, request.accept_risk
    chosen = choice.choose(table.points, fitting, *how)
    return table.space.configuration(chosen.index) if chosen is not None else None


def _undominated(
    request: Request, contexts: Sequence[_Longest], always: Sequence[Configuration]
) -> list[_Longest]:
    """Longest first, of the same length what is recommended there; without those that another beats
    in context, retention and chunk at once, but for those `always` kept."""

    low = {one: _kept_at_least(request, one.config, one.context) for one in contexts}

    def merits(one: _Longest) -> tuple[float, float, float]:
        return one.context, round(low[one], 3), one.config.chunk or float("inf")

    kept: list[_Longest] = []
    for one in sorted(contexts, key=lambda x: (-x.context, x.config not in always, -low[x])):
        mine = merits(one)
        beaten = any(
            all(a >= b for a, b in zip(merits(other), mine, strict=True)) for other in kept
        )
        if not beaten or one.config in always:
            kept.append(one)
    return kept


def _at(request: Request, context: int) -> Request:
    """The same of another context."""
    return replace(request, workload=replace(request.workload, context=context))


def _nowhere(request: Request) -> NothingFits:
    details = {"model": request.spec.name, "budget": request.budget, "context": 0}
    points = evaluate_request(_at(request, 1)).points
    usable = points.memory[points.retention >= choice.USABLE]
    if not (usable <= request.budget).any():
        hint = "choose a smaller model or more memory"
        if usable.size and np.isfinite(usable.min()):
            hint = f"one token takes {budget_for(int(np.ceil(usable.min())))}: {hint}"
        return NothingFits(
            "no configuration fits the budget even with a context of one token", hint, details
        )
    if has_targets(request):
        table = evaluate_request(_at(request, STEP))
        quick = in_time(request, table) & (table.points.memory <= request.budget)
        if not (quick & (table.points.retention >= choice.USABLE)).any():
            return NothingFits(
                "nothing that fits the budget is as fast as asked at any context",
                "a faster GPU helps, or a longer --ttft or --tpot",
                details,
            )
    return NothingFits(
        "nothing that fits the budget is safe at any context",
        "--accept-risk shows it all the same; or accept a larger --max-loss, or more memory",
        details,
    )
