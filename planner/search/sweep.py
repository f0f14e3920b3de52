"""One question at many contexts and budgets: what `kvpareto report` draws.

The space is evaluated once a context; every budget then is a choice in arrays. So each answer is
the one that `recommend` gives for that context and budget.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import BadInput
from ..formats.configuration import CHUNKS, Configuration
from ..light_dataclass import dataclass
from ..workload import Workload
from . import choose
from .evaluate import Point
from .placed.questions import evaluate_request, requested_point, roomy_points
from .request import Request

FIRST_CONTEXT = 1024
LONGEST_CONTEXT = 2**20
"""Where the series of contexts ends for models that do not say what they were made for."""


@dataclass(frozen=True)
class ContextAnswers:
    """The answers at one context.

    `points`: about `SHOWN` points of the frontier and every recommended one, by memory.
    `recommended`: for each budget an index into `points`; None where nothing safe fits.
    """

    context: int
    points: list[Point]
    recommended: list[int | None]


@dataclass(frozen=True)
class PlacedAnswers:
    """The answers at one context of an engine that fills host memory too, where every budget
    places every configuration anew: for each budget some points of the frontier, by memory, and
    the index of the recommended one; None where nothing safe fits."""

    context: int
    by_budget: list[tuple[list[Point], int | None]]


def contexts_of(request: Request) -> list[int]:
    """Contexts to draw, ascending: powers of two from 1k to the model's maximum less the output,
    that end itself, and the one that was asked."""
    limit = request.spec.max_context or LONGEST_CONTEXT
    most = max(request.workload.context, min(limit, LONGEST_CONTEXT) - request.workload.output, 1)
    steps = [FIRST_CONTEXT << i for i in range(11) if FIRST_CONTEXT << i < most]
    return sorted({*steps, most, request.workload.context})


def budgets_around(budget: int, count: int = 25) -> list[int]:
    """Budgets in bytes from a quarter of `budget` to four times, evenly in the logarithm; the
    middle one is `budget` itself. Raises BadInput for an even count."""
    if count % 2 == 0:
        raise BadInput(f"{count} budgets have no middle", "ask for an odd number")
    half = count // 2
    return [round(budget * 4 ** ((i - half) / half)) for i in range(count)]


def placed_sweep(
    request: Request, contexts: Sequence[int], budgets: Sequence[int], shown: int = 12
) -> list[PlacedAnswers]:
    """What is recommended at each context for each budget, each placed on its own."""
    return [
        PlacedAnswers(context, [_placed_answer(request, context, b, shown) for b in budgets])
        for context in contexts
    ]


def _placed_answer(
    request: Request, context: int, budget: int, shown: int
) -> tuple[list[Point], int | None]:
    (one,) = sweep(replace(request, budget=budget), [context], [budget], shown)
    return one.points, one.recommended[0]


def sweep(
    request: Request, contexts: Sequence[int], budgets: Sequence[int], shown: int = 40
) -> list[ContextAnswers]:
    """What is recommended at each context for each budget, and the frontier there."""
    return [_at_context(request, context, budgets, shown) for context in contexts]


def _at_context(
    request: Request, context: int, budgets: Sequence[int], shown: int
) -> ContextAnswers:
    asked = replace(request, workload=replace(request.workload, context=context))
    table = evaluate_request(asked)
    points, loss = table.points, asked.accepted_loss
    how = asked.objective, loss, asked.accept_risk
    answers = [
        choose.choose(points, points.memory <= budget, *how, roomy_points(asked, table, budget))
        for budget in budgets
    ]
    keep = sorted({answer.index for answer in answers if answer is not None})
    frontier = choose.frontier(points)
    indices = choose.spread(points, frontier, keep, count=shown) if len(frontier) else keep
    number = {index: i for i, index in enumerate(indices)}
    return ContextAnswers(
        context=context,
        points=table.points_at(indices),
        recommended=[number[a.index] if a is not None else None for a in answers],
    )


def over_contexts(request: Request, config: Configuration, contexts: Sequence[int]) -> list[Point]:
    """One configuration at each context; those it cannot be run at, or placed, are left out."""
    return _predicted(request, [(config, replace(request.workload, context=c)) for c in contexts])


def over_chunks(request: Request, config: Configuration) -> list[Point]:
    """One configuration with each prefill chunk up to the context, then in one shot."""
    context = request.workload.context
    own = request.engine.chunks(request.workload)
    chunks = own or (*(c for c in CHUNKS if c < context), None)
    return _predicted(request, [(config.with_chunk(c), request.workload) for c in chunks])


def _predicted(
    request: Request, questions: Sequence[tuple[Configuration, Workload]]
) -> list[Point]:
    points = []
    for config, workload in questions:
        try:
            point = requested_point(request, config, workload)
        except BadInput:  # a chunk or a window that this engine or this context does not take
            continue
        if point.placement is None or point.placement.fits:
            points.append(point)
    return points
