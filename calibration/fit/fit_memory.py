"""What a GPU's memory holds beside tensors, from whole runs: the context, the allocator's slack.

Tensors' bytes are derived and not fitted; planner/memory/overhead.py says what is left. The
context is device memory outside torch's allocator after a run; slack is what the allocator
reserved beyond the room that tensors and libraries are derived to need, as a part of what of it
comes and goes (all but the weights).
"""

from collections.abc import Sequence

import numpy as np

from ...planner.engines.kvpareto import KVPARETO
from ...planner.hardware.gpu_names import candidates
from ...planner.memory.overhead import workspace
from ...planner.memory.weights import weight_bytes
from .engine_runs import RunRow

Ends = tuple[float, float, float]
"""Expected, low, high."""
FEWEST = 3  # runs below which nothing is said
COVERED = 0.95
LESS_CONTEXT, MORE_CONTEXT, WIDER_SLACK = 0.03, 0.08, 0.02
"""What the ends are put further out by: parts of the context, which grows in a process with every
format that it compiles, 802 to 869 MB over a hundred runs; parts of what comes and goes."""


def contexts(rows: Sequence[RunRow]) -> Ends | None:
    """Bytes of the context: median, and where COVERED of the runs lie, a little widened."""
    found = [float(row.context_bytes) for row in rows if row.context_bytes is not None]
    if len(found) < FEWEST:
        return None
    low, middle, high = _quantiles(found)
    return middle, low * (1 - LESS_CONTEXT), high * (1 + MORE_CONTEXT)


def slacks(rows: Sequence[RunRow]) -> Ends | None:
    """The allocator's slack in parts of what comes and goes, in the same way."""
    found = [part for row in rows if (part := slack_of(row)) is not None]
    if len(found) < FEWEST:
        return None
    low, middle, high = _quantiles(found)
    return middle, max(0.0, low - WIDER_SLACK), high + WIDER_SLACK


def slack_of(row: RunRow) -> float | None:
    """One run's slack; None where it was not measured."""
    if row.reserved_peak is None:
        return None
    weights = weight_bytes(row.spec, row.config.weight_bits).total
    room = KVPARETO.activation(row.spec, row.config, row.workload).room
    moving = room + workspace(row.spec, candidates(row.gpu)[0])
    return (row.reserved_peak - weights) / moving - 1


def _quantiles(values: Sequence[float]) -> Ends:
    outside = (1 - COVERED) / 2
    low, middle, high = np.quantile(values, [outside, 0.5, 1 - outside])
    return float(low), float(middle), float(high)
