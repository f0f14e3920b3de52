"""The longest context at which something that fits is safe: of a whole space, in steps.

By bisection on tables of the space; of an engine that places configurations one by one, each is
taken to its own last step (placed/last_step.py), and a table is made where the answer is; times
that were asked for need tables there too. What
people run ends there too or shortly before, so it is looked for from there downwards. Neither
memory nor what is kept improves as the context grows, up to the rounding of token blocks and of
the last chunk.
"""

from dataclasses import replace
from functools import cache

from . import choose as choice
from .bisection import last, last_near
from .placed.questions import Table, evaluate_request
from .request import Request
from .targets import has_targets, in_time

STEP = 64
"""Tokens to which the whole space's longest context is found."""


def longest_safe(
    request: Request, most: int, step: int = STEP
) -> tuple[Table | None, Table | None]:
    """The space at the longest context up to `most`, in steps, at which something that fits is
    safe: something that people run, and anything at all. None where there is no such context."""

    def at(steps: int) -> Request:
        context = min(steps * step, most)
        return replace(request, workload=replace(request.workload, context=context))

    @cache
    def table(steps: int) -> Table:
        return evaluate_request(at(steps))

    def possible(steps: int, *, usual: bool = False) -> bool:
        return bool(safe_fitting(request, table(steps), usual=usual).any())

    def usually(steps: int) -> bool:
        return possible(steps, usual=True)

    all_steps = -(-most // step)
    if request.engine.places and not has_targets(request):
        from .placed.last_step import last_step  # only for the engines that place

        longest = last_step(at, all_steps)
        usual = longest
        if longest and not usually(longest):
            before = last_step(at, longest - 1, in_graphs=True) if longest > 1 else 0
            usual = last_near(usually, before)
    else:
        longest = last(possible, all_steps)
        usual = last_near(usually, longest)
    return table(usual) if usual else None, table(longest) if longest else None


def safe_fitting(request: Request, table: Table, *, usual: bool) -> choice.Mask:
    """Points of a space that fit the budget in the time that was asked and may be recommended; with
    the risk accepted, that are usable."""
    points, how = table.points, (request.accepted_loss, request.accept_risk)
    kept = choice.enough(points.low, points.retention, *how)
    kept &= (points.memory <= request.budget) & in_time(request, table)
    if not request.accept_risk:
        kept &= points.allowed
    return kept & points.usual if usual else kept
