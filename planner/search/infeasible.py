"""When nothing fits: by how much, and what would."""

from dataclasses import replace

import numpy as np

from ..errors import NothingFits
from ..formats.configuration import Configuration
from ..memory import estimate as memory
from ..units import format_bytes, format_tokens
from .choose import USABLE
from .evaluate import Table
from .max_context import longest_context
from .request import Request


def nothing_fits(request: Request, table: Table, fitting: np.ndarray) -> NothingFits:
    """The error to raise: what misses, by how much, and what would fit instead."""
    points, loss = table.points, request.accepted_loss
    least = USABLE if loss is None else max(USABLE, 1 - loss)
    accepted = np.flatnonzero(points.retention >= least)
    if not len(accepted):
        best = int(np.argmax(points.retention))
        return NothingFits(
            f"no configuration is predicted to lose at most {loss:.1%}; the best, "
            f"{table.space.configuration(best)}, loses {1 - points.retention[best]:.1%}",
            "accept a larger --max-loss",
        )
    smallest = int(accepted[np.argmin(points.memory[accepted])])
    need = int(points.memory[smallest])
    config = table.space.configuration(smallest)
    hints = [f"a budget of {format_bytes(need)}", *_smaller_workloads(request, config)]
    if loss is not None and fitting.any():
        best = int(np.flatnonzero(fitting)[np.argmax(points.retention[fitting])])
        hints.append(
            f"--max-loss {np.ceil(1000 * (1 - points.retention[best])) / 10:.1f}% with "
            f"{table.space.configuration(best)}"
        )
    most, unsure = "", ""
    if request.spec.ends:  # judged by the largest of the readings
        most, unsure = "at most ", f" ({request.spec.model_type} is not known)"
    what = "nothing fits" if loss is None else f"nothing that loses at most {loss:.1%} fits"
    return NothingFits(
        f"{what}: the smallest usable configuration, {config}, needs {most}{format_bytes(need)}, "
        f"{format_bytes(need - request.budget)} more than the budget of "
        f"{format_bytes(request.budget)}{unsure}",
        "this would fit: " + "; or ".join(hints),
    )


def _smaller_workloads(request: Request, config: Configuration) -> list[str]:
    """A shorter context and a smaller batch with which this configuration fits."""
    hints = []
    longest = longest_context(request, config)
    if longest is not None and longest.context < request.workload.context:
        hints.append(f"--context {longest.context} ({format_tokens(longest.context)} tokens)")
    low, high = 0, request.workload.batch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(request, config, middle) else (low, middle)
    if low:
        hints.append(f"--batch {low}")
    return hints


def _fits(request: Request, config: Configuration, batch: int) -> bool:
    workload = replace(request.workload, batch=batch)
    found = memory.estimate(request.spec, config, workload, request.engine, request.hardware)
    return found.total_high <= request.budget
