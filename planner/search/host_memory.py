"""What to type where a configuration needs more memory: a budget, or a machine's host memory.

Engines that place a model on two devices have two budgets. The smallest `--ram` that would do is
found by placing the configuration again.
"""

from dataclasses import replace

from ..formats.configuration import Configuration
from ..units import budget_for, exact_bytes
from .gpu_memory import machine_with, most_typed
from .placed.questions import placement_of
from .request import Request


def room_hints(request: Request, config: Configuration, need: int) -> list[str]:
    """What to type for a configuration that needs `need` bytes: host memory, or a budget; a smaller
    `--reserve` where the cards have as much beside it, other cards where they have not. Where there
    is no device the budget is host memory, and the option that was typed comes first; one of
    `--ram` alone is not said in two ways."""
    host = typed_host_memory(request, config, need)
    ram, budget = [f"--ram {host}"] * (host is not None), [f"a budget of {budget_for(need)}"]
    if request.host_only:
        # A budget that stays typed is the smaller of the two.
        instead = [f"{text} in place of --budget" for text in ram]
        return [*budget, *instead] if request.budget_typed else ram
    gpus = request.machine.gpus
    left = sum(gpu.memory_bytes for gpu in gpus) - need
    if request.reserve and left >= 0:
        reserve = left // _STEP * _STEP
        budget = [f"--reserve {exact_bytes(reserve) if reserve else 0}"]
    elif typed_budget(request, need) is None:
        one = "a GPU that gives" if len(gpus) == 1 else "GPUs that give"
        budget = [f"{one} programs {budget_for(need, ' ')}"]
    return [*ram, *budget]


def typed_budget(request: Request, need: int) -> str | None:
    """The `--budget` that holds `need` bytes; None beside GPUs that have fewer."""
    gpus = request.machine.gpus
    return None if gpus and need > most_typed(gpus) else budget_for(need)


_STEP = 10**7
"""Bytes in which a reserve is named."""


def typed_host_memory(request: Request, config: Configuration, need: int) -> str | None:
    """The `--ram` with which this configuration would fit, the rest of it in host memory; None for
    engines that keep all of a model on one device, and where more host memory would not do."""
    if not request.engine.places or (request.hardware is not None and request.hardware.unified):
        return None
    if request.host_only:
        return budget_for(machine_with(need))

    def fits(ram: int) -> bool:
        asked = replace(request, ram=ram)
        return placement_of(asked, config, request.workload).needed <= request.budget

    low, high = 0, 2**43
    if not fits(high):
        return None
    while high - low > 10**7:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return budget_for(machine_with(high))
