"""When nothing fits: by how much, and what would."""

from dataclasses import replace

import numpy as np

from ..errors import NothingFits
from ..formats.configuration import Configuration
from ..memory import estimate as memory
from ..units import budget_for, format_bytes, format_tokens
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
            {
                "budget": request.budget,
                "max_loss": loss,
                "least_loss": float(1 - points.retention[best]),
            },
        )
    smallest = int(accepted[np.argmin(points.memory[accepted])])
    need = int(points.memory[smallest])
    config = table.space.configuration(smallest)
    context, batch = _smaller_workloads(request, config)
    would_fit: dict[str, object] = {
        "budget": budget_for(need), "budget_bytes": need, "context": context, "batch": batch
    }  # fmt: skip
    hints = [f"a budget of {budget_for(need)}"]
    if context is not None:
        hints.append(f"--context {context} ({format_tokens(context)} tokens)")
    if batch is not None:
        hints.append(f"--batch {batch}")
    if loss is not None and fitting.any():
        best = int(np.flatnonzero(fitting)[np.argmax(points.retention[fitting])])
        accepted_loss = f"{np.ceil(1000 * (1 - points.retention[best])) / 10:.1f}%"
        hints.append(f"--max-loss {accepted_loss} with {table.space.configuration(best)}")
        would_fit["max_loss"] = accepted_loss
    what = "nothing fits" if loss is None else f"nothing that loses at most {loss:.1%} fits"
    return NothingFits(
        f"{what}: the smallest usable configuration, {config}, needs {format_bytes(need)}, "
        f"{format_bytes(need - request.budget)} more than the budget of "
        f"{format_bytes(request.budget)}",
        "this would fit: " + "; or ".join(hints),
        {
            "model": request.spec.name,
            "budget": request.budget,
            "needed_bytes": need,
            "missing_bytes": need - request.budget,
            "config": str(config),
            "would_fit": would_fit,
        },
    )


def _smaller_workloads(request: Request, config: Configuration) -> tuple[int | None, int | None]:
    """The longest context and the largest batch with which this configuration fits; None where no
    smaller one does."""
    longest = longest_context(request, config)
    shorter = longest is not None and longest.context < request.workload.context
    context = longest.context if longest is not None and shorter else None
    low, high = 0, request.workload.batch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(request, config, middle) else (low, middle)
    return context, low or None


def _fits(request: Request, config: Configuration, batch: int) -> bool:
    workload = replace(request.workload, batch=batch)
    found = memory.estimate(request.spec, config, workload, request.engine, request.hardware)
    return found.total_high <= request.budget
