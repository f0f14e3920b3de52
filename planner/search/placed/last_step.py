"""How far a context can grow until nothing that is safe fits, of engines that place.

A table would place every configuration at every context, seconds included. Here only what is safe
is asked, and only what it needs: each configuration is taken to its own last step, unless it ends
before the best so far does.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from ...errors import BadInput
from ...formats.configuration import Configuration
from .. import choose
from ..bisection import last
from ..evaluate import accuracy_of
from ..request import Request
from .table import ANY, captures_graphs, evaluate_placed, placement_of, space_of


def last_step(at: Callable[[int], Request], steps: int, *, in_graphs: bool = False) -> int:
    """The last of 1 .. `steps` for whose request something safe fits; `in_graphs`: with CUDA
    graphs, of a server. 0: none. Raises BadInput as evaluate_placed does."""

    @cache
    def safe(step: int) -> dict[Configuration, None]:
        return dict.fromkeys(_safe_configurations(at(step)))

    def needs(config: Configuration, step: int) -> int:
        request = at(step)
        try:
            return request.engine.needed(request.spec, config, request.workload, request.machine)
        except BadInput:
            if not request.engine.serves:
                raise
            return ANY

    def fits(config: Configuration, step: int) -> bool:
        if config not in safe(step) or needs(config, step) > at(step).budget:
            return False
        return not in_graphs or captures_graphs(placement_of(at(step), config, at(step).workload))

    sizes = {config: needs(config, steps) for config in safe(steps)}
    least = min(sizes.values(), default=ANY)
    if sizes and least == ANY:  # refused: the table says why
        evaluate_placed(at(steps))
    if any(fits(config, steps) for config, size in sizes.items() if size <= at(steps).budget):
        return steps
    best, ended = 0, set[Configuration]()
    while best < steps - 1:
        left = [config for config in safe(best + 1) if config not in ended]
        for config in sorted(left, key=lambda one: sizes.get(one, ANY)):
            if fits(config, best + 1):
                best = _grown(partial(fits, config), best + 1, steps - 1)
                break
            ended.add(config)
        else:
            break
    return best


def _grown(fits: Callable[[int], bool], first: int, most: int) -> int:
    """The last of `first`, which fits, .. `most` that fits."""
    return first - 1 + last(lambda more: fits(first - 1 + more), most - first + 1)


def _safe_configurations(request: Request) -> list[Configuration]:
    """What of the space may be recommended where it fits."""
    space = space_of(request)
    grid = accuracy_of(request.spec, space, request.workload.context, request.task)
    kept = choose.enough(grid.low, grid.retention, request.accepted_loss, request.accept_risk)
    kept = np.broadcast_to(kept[:, :, None], space.shape).ravel()
    return [space.configuration(int(i)) for i in np.flatnonzero(kept)]
