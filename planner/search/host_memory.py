"""What to type where a configuration needs more memory: a budget, or a machine's host memory.

Engines that place a model on several devices have several budgets, and what they need of one
depends on the others, and on itself: more of a card may hold more layers. What is named is found
by placing the configuration again, so that it would do.
"""

from collections.abc import Callable
from dataclasses import replace

from ..errors import BadInput
from ..formats.configuration import Configuration
from ..units import budget_for, exact_bytes, parse_bytes
from .gpu_memory import machine_with, most_typed
from .placed.questions import placement_of
from .request import Request

STEP = 10**7
"""Bytes in which budgets are looked for, and a reserve is named."""
MOST = 2**43
"""Bytes of host memory beyond which none is looked for."""


def room_hints(request: Request, config: Configuration, need: int) -> list[str]:
    """What to type for a configuration that needs `need` bytes: host memory, or a budget; a smaller
    `--reserve` where the cards have as much beside it, other cards where they have not. Where there
    is no device the budget is host memory, and the option that was typed comes first; one of
    `--ram` alone is not said in two ways. Both together where neither alone would do."""
    host = typed_host_memory(request, config, need)
    ram = [f"--ram {host}"] * (host is not None)
    if request.host_only:
        # A budget that stays typed is the smaller of the two.
        instead = [f"{text} in place of --budget" for text in ram]
        return [f"a budget of {budget_for(need)}", *instead] if request.budget_typed else ram
    size, also = budget_that_holds(request, config, need), ""
    if size is None and host is None:
        roomy = replace(request, ram=MOST)
        size = budget_that_holds(roomy, config, need)
        if size is None:
            return []
        host = typed_host_memory(replace(request, budget=size), config, need)
        also = f" with --ram {host}"
    if size is None:
        return ram
    gpus = request.machine.gpus
    reserve = _smaller_reserve(request, config, size)
    budget = f"a budget of {budget_for(size)}"
    if reserve is not None and not also:
        budget = f"--reserve {exact_bytes(reserve) if reserve else 0}"
    elif typed_budget(request, size) is None:
        one = "a GPU that gives" if len(gpus) == 1 else "GPUs that give"
        budget = f"{one} programs {budget_for(size, ' ')}"
    return [*ram, budget + also]


def typed_budget(request: Request, size: int) -> str | None:
    """The `--budget` of `size` bytes; None beside GPUs that have fewer."""
    gpus = request.machine.gpus
    return None if gpus and size > most_typed(gpus) else budget_for(size)


def budget_that_holds(request: Request, config: Configuration, need: int) -> int | None:
    """Bytes of the smallest budget found, `need` at least, that holds this configuration and is
    typed in two decimals; None where none would do, for want of host memory."""
    size = parse_bytes(budget_for(need))
    if not request.engine.places or request.host_only:
        return size
    fits = _placed_within(request, config)
    if fits(size):
        return size
    low, high, step = size, size + STEP, STEP
    while not fits(high):
        if step > size:
            return None
        low, high, step = high, high + step, 2 * step
    while high - low > STEP:
        middle = low + (high - low) // STEP // 2 * STEP
        low, high = (low, middle) if fits(middle) else (middle, high)
    high = parse_bytes(budget_for(high))
    return high if fits(high) else None


def _placed_within(request: Request, config: Configuration) -> Callable[[int], bool]:
    """Whether the configuration fits a budget of so many bytes, of a request that is placed."""

    def fits(size: int) -> bool:
        asked = replace(request, budget=size)
        try:
            return placement_of(asked, config, request.workload).needed <= size
        except BadInput:  # a server that cannot share the model so
            return False

    return fits


def _smaller_reserve(request: Request, config: Configuration, size: int) -> int | None:
    """Bytes of a `--reserve` of each card that leaves `size` and holds this configuration; None
    where the cards have no room for it, and where nothing is reserved."""
    gpus = request.machine.gpus
    left = sum(gpu.memory_bytes for gpu in gpus) - size
    if not request.reserve or left < 0:
        return None
    for each in dict.fromkeys((left // len(gpus) // STEP * STEP, 0)):
        budget = left + size - each * len(gpus)
        asked = replace(request, budget=budget, reserve=each * len(gpus))
        if not request.engine.places or _placed_within(asked, config)(budget):
            return each
    return None


def typed_host_memory(request: Request, config: Configuration, need: int) -> str | None:
    """The `--ram` with which this configuration would fit, the rest of it in host memory; None for
    engines that keep all of a model on one device, and where more host memory would not do."""
    if not request.engine.places or (request.hardware is not None and request.hardware.unified):
        return None
    if request.host_only:
        return budget_for(machine_with(need))

    def fits(ram: int) -> bool:
        return _placed_within(replace(request, ram=ram), config)(request.budget)

    low, high = 0, MOST
    if not fits(high):
        return None
    while high - low > STEP:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return budget_for(machine_with(high))
