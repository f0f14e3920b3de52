"""The longest context at which something that fits is safe: of a whole space, in steps.

By bisection on tables of the space; of an engine that places configurations one by one, each is
taken to its own last step (placed/last_step.py), and a table is made where the answer is. What
people run ends there too or shortly before, so it is looked for from there downwards. Neither
memory nor what is kept improves as the context grows, up to the rounding of token blocks and of
the last chunk.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from . import choose as choice
from .placed.questions import Table, evaluate_request
from .request import Request

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
    if request.engine.places:
        from .placed.last_step import last_step  # only for the engines that place

        longest = last_step(at, all_steps)
        usual = longest
        if longest > 1 and not usually(longest):
            usual = _last_near(usually, last_step(at, longest - 1, in_graphs=True))
    else:
        longest = last(possible, all_steps)
        usual = _last_near(usually, longest)
    return table(usual) if usual else None, table(longest) if longest else None


def safe_fitting(request: Request, table: Table, *, usual: bool) -> choice.Mask:
    """Points of a space that fit the budget and may be recommended; with the risk accepted, that
    are usable."""
    points = table.points
    kept = may_be_chosen(request, points.low, points.retention) & (points.memory <= request.budget)
    if not request.accept_risk:
        kept &= points.allowed
    return kept & points.usual if usual else kept


def may_be_chosen(request: Request, low: choice.Column, retention: choice.Column) -> choice.Mask:
    """Where what is kept is enough for a recommendation; with the risk accepted, to be usable."""
    loss = request.accepted_loss
    if loss is None or request.accept_risk:
        kept: choice.Mask = retention >= max(choice.USABLE, 1 - (1.0 if loss is None else loss))
    else:
        kept = (low >= 1 - loss) & (retention >= choice.USABLE)
    return kept


def last(holds: Callable[[int], bool], most: int) -> int:
    """The last of 1 .. `most` for which `holds` does, which holds for none after it; 0: none."""
    if holds(most):
        return most
    if most == 1 or not holds(1):  # a search for nothing would ask ten times more
        return 0
    return _between(holds, 1, most)


def _last_near(holds: Callable[[int], bool], most: int) -> int:
    """As last(), asking first near `most`, which may be 0."""
    high, back = most, 1
    if not most or holds(most):
        return most
    while high > 1:
        low = max(1, most - back)
        if holds(low):
            return _between(holds, low, high)
        high, back = low, 2 * back
    return 0


def _between(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last from `low`, for which it holds, to before `high`, for which it does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
