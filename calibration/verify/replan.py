"""What to run instead, where a prediction turned out wrong.

Memory: what was measured beyond the prediction is taken off the budget, and the plan made again
from what is left; a run that ended before its total was known is given MARGIN of the budget
instead. Accuracy: the run's rows are in the calibration by now, and the plan made again from that.
Seconds: their coefficients are not refitted from one run, so nothing else is recommended.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...planner.errors import NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.search.request import Request
from ...planner.units import format_bytes
from ...report.document_parts import point
from ..recommended import recommend_on
from .judge import Term
from .on_cpu import point_on_cpu

MARGIN = 0.05
TENSORS = "weights", "kv"


def correction(
    request: Request,
    config: Configuration,
    terms: Sequence[Term],
    ran: bool,
    lost: bool,
    device: str = "cuda",
) -> dict[str, Any] | None:
    """A plan that takes the measurement into account; None where nothing speaks against the old.

    `ran`: whether it ran within the budget. `lost`: whether a task kept less than was predicted.
    `device`: where it ran, and where the other plan would: a CPU holds nothing of a GPU's.
    """
    margin = _margin(request.budget, terms, ran)
    if not margin and not lost:
        return None
    budget = request.budget - margin
    why = []
    if margin:
        known = _beyond(terms) > 0
        why.append(
            f"the budget is reduced by {format_bytes(margin)}: "
            + ("the measurement exceeds the prediction" if known else "the run did not finish")
        )
    if lost:
        why.append("the calibration now includes the scores")
    fields: dict[str, Any] = {"budget": budget, "margin": margin, "because": "; ".join(why)}
    try:
        plan = recommend_on(replace(request, budget=budget), device)
    except NothingFits as error:
        return fields | {"fits": False, "recommended": None, "reason": error.message}
    best = plan.recommended
    document = point(best.config, best.memory, best.accuracy, best.latency)
    reason = plan.reasons[0]
    if device == "cpu":
        document = point_on_cpu(document)
        memory = document["memory"]
        total, most = format_bytes(memory["total"]), format_bytes(memory["total_high"])
        reason = f"It fits: {total} predicted, at most {most}."
    return fields | {
        "fits": True,
        "recommended": document,
        "reason": "the same configuration is still recommended"
        if best.config == config
        else reason,
    }


def _margin(budget: int, terms: Sequence[Term], ran: bool) -> int:
    total = _total(terms)
    beyond = _beyond(terms)
    if total.side == "worse" or (not ran and beyond > 0):
        return beyond
    return 0 if ran else int(MARGIN * budget)


def _beyond(terms: Sequence[Term]) -> int:
    """Bytes measured beyond the prediction: of the total, or where it was not measured of the
    tensors that were."""
    total = _total(terms)
    parts = [total] if total.measured is not None else [t for t in terms if t.name in TENSORS]
    return sum(int(t.measured - (t.predicted or 0)) for t in parts if t.measured is not None)


def _total(terms: Sequence[Term]) -> Term:
    return next(term for term in terms if term.name == "total")
