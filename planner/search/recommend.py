"""From a model, a workload and a budget to one recommended configuration, with reasons.

The space is evaluated as arrays (table), the rules pick indices (choice), and what is said about
them is written here from the few points that are shown (explain).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import NothingFits
from ..light_dataclass import dataclass
from . import choose as choice
from .evaluate import Point
from .placed.questions import evaluate_request, roomy_points
from .request import SAFE_LOSS, Request
from .targets import fast_enough, has_targets
from .why import reasons_for, steps_from, warnings_for

__all__ = ["Plan", "Point", "Request", "recommend"]


@dataclass(frozen=True)
class Plan:
    """The answer: one configuration, the frontier it is judged by, and words about both."""

    request: Request
    recommended: Point
    frontier: Sequence[Point]
    """Over all configurations, whether they fit or not; by memory, ascending."""
    shown: Sequence[Point]
    """About ten points of the frontier for a person; choice.spread says which."""
    reasons: tuple[str, ...]
    steps: tuple[str, ...]
    """What more or less memory would buy, in words."""
    next_up: Point | None
    next_down: Point | None
    considered: int
    fitting: int
    warnings: tuple[str, ...]
    relative_latency: Mapping[str, tuple[float, float]]
    """TTFT and TPOT of the shown configurations in multiples of the recommended one's, on the
    reference GPU that ordered them where none was named; empty where one was."""
    fits: bool = True
    safe: bool = True
    """Whether the lower end of the recommended point's retention keeps what must be kept; False
    only where the risk was accepted."""


def recommend(request: Request, *, explain: bool = True) -> Plan:
    """The configuration to run. Raises NothingFits if none within the budget may be recommended;
    `explain`: with what would fit, which takes as long as the plan."""
    table = evaluate_request(request)
    points, loss = table.points, request.accepted_loss
    fitting = points.memory <= request.budget
    if has_targets(request):
        table = fast_enough(request, table, fitting)
        points = table.points
    roomy = roomy_points(request, table, request.budget)
    chosen = choice.choose(points, fitting, request.objective, loss, request.accept_risk, roomy)
    if chosen is None and not explain:
        raise NothingFits("nothing that fits may be recommended", "give more memory")
    if chosen is None:
        from .infeasible import infeasible_error

        raise infeasible_error(request, table, fitting)
    up = choice.next_up(points, chosen.index, request.budget, loss)
    down = choice.next_down(points, chosen.index, loss)
    keep = [chosen.index, *(i for i in (up, down) if i is not None)]
    # These may be as good as one of the frontier, and simpler: they stand beside it.
    frontier = np.array(sorted({*choice.frontier(points).tolist(), *keep}))
    frontier = frontier[np.argsort(points.memory[frontier], kind="stable")]
    shown = choice.spread(points, frontier, keep)
    known = dict(zip(frontier.tolist(), table.points_at(frontier.tolist()), strict=True))
    best = known[chosen.index]
    relative_latency = {
        str(known[i].config): (
            float(points.ttft[i] / points.ttft[chosen.index]),
            float(points.tpot[i] / points.tpot[chosen.index]),
        )
        for i in shown
        if request.hardware is None and not request.host_only
    }
    next_up = known[up] if up is not None else None
    next_down = known[down] if down is not None else None
    return Plan(
        request=request,
        recommended=best,
        frontier=list(known.values()),
        shown=[known[i] for i in shown],
        reasons=reasons_for(request, table, fitting, chosen, best, shown),
        steps=steps_from(best, next_up, next_down),
        next_up=next_up,
        next_down=next_down,
        considered=len(table.space),
        fitting=int(fitting.sum()),
        warnings=warnings_for(request, best),
        relative_latency=relative_latency,
        safe=chosen.safe or (loss is None and best.accuracy.low >= 1 - SAFE_LOSS),
    )
