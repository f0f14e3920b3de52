"""The longest context that fits: by bisection on the memory model, for one configuration."""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import NothingFits
from ..formats.configuration import Configuration
from ..light_dataclass import dataclass
from ..memory import estimate as memory
from ..workload import Workload
from .evaluate import Point, predict_point
from .request import Request

LONGEST = 2**24
"""Where the search ends for models that do not say how much context they were made for."""


@dataclass(frozen=True)
class MaxContext:
    """`context` prompt tokens (and the request's output) fit; `point` is the plan there.

    `limited_by_model`: the model's own limit stops the context, not the memory.
    """

    context: int
    limited_by_model: bool
    point: Point


def max_context_of(request: Request, config: Configuration) -> MaxContext | None:
    """The longest context at which this configuration fits the budget; None: not one token.

    Memory never falls as the context grows, up to the rounding of token blocks and of the last
    chunk, so bisection finds the last context of a run of fitting ones.
    """
    spec, engine, hardware = request.spec, request.engine, request.hardware
    most = max(1, (spec.max_context or LONGEST) - request.workload.output)

    def at(context: int) -> Workload:
        return replace(request.workload, context=context)

    def fits(context: int) -> bool:
        estimated = memory.estimate(spec, config, at(context), engine, hardware)
        return estimated.total_high <= request.budget

    if fits(most):
        low = most
    else:
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
    if not low:
        return None
    point = predict_point(spec, config, at(low), engine, hardware, request.task)
    return MaxContext(low, low == most and spec.max_context is not None, point)


def max_contexts(request: Request, configs: Sequence[Configuration]) -> list[MaxContext]:
    """Longest contexts of configurations, longest first. Raises NothingFits if none has any."""
    contexts = [longest for config in configs if (longest := max_context_of(request, config))]
    if not contexts:
        raise NothingFits(
            "no configuration fits the budget even with a context of one token",
            "the weights alone are too large: choose a smaller model or more memory",
            {"model": request.spec.name, "budget": request.budget, "context": 0},
        )
    return sorted(contexts, key=lambda x: (-x.context, -x.point.accuracy.low))
