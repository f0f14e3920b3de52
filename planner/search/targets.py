"""Times that were asked for, `--ttft 2s --tpot 30ms`, as a constraint on what may be recommended.

The expected time decides, as it does everywhere; where the interval's high end is beyond the
target, a note says so.
"""

from dataclasses import replace

import numpy as np

from ..errors import NothingFits
from .choose import USABLE, safe_points
from .evaluate import Point
from .placed.questions import Table
from .point_arrays import Mask
from .request import Request


def fast_enough(request: Request, table: Table, fitting: Mask) -> Table:
    """The table without what is too slow. Raises NothingFits where nothing that fits is fast
    enough, with the fastest that is."""
    points = table.points
    kept = np.ones(len(points.memory), dtype=bool)
    if request.ttft is not None:
        kept &= points.ttft <= request.ttft
    if request.tpot is not None:
        kept &= points.tpot <= request.tpot
    good = fitting & (points.retention >= USABLE)
    if request.accepted_loss is not None and not request.accept_risk:
        good &= safe_points(points, request.accepted_loss)
    if good.any() and not (good & kept).any():
        raise _too_slow(request, table, good)
    usable = np.where(kept, points.retention, 0.0)
    low = np.where(kept, points.low, 0.0)
    narrowed = replace(points, retention=usable, low=low, allowed=points.allowed & kept)
    return replace(table, points=narrowed)


def target_notes(request: Request, point: Point) -> list[str]:
    """Where a target is met by the expected time alone."""
    latency = point.latency
    if latency is None:
        return []
    ends = (
        ("TTFT", request.ttft, latency.ttft_high),
        ("TPOT", request.tpot, latency.tpot_high),
    )
    return [
        f"{name} is within {_words(target)} as expected, and {_words(high)} at the high end of its "
        "interval"
        for name, target, high in ends
        if target is not None and high > target
    ]


def _too_slow(request: Request, table: Table, good: Mask) -> NothingFits:
    points, left = table.points, np.flatnonzero(good)
    asked = [("TTFT", request.ttft, points.ttft), ("TPOT", request.tpot, points.tpot)]
    said = [
        f"{name} {_words(target)} (the fastest has {_words(float(times[left].min()))})"
        for name, target, times in asked
        if target is not None
    ]
    hint = "a faster GPU, or more of them (--gpu 2xH100), fewer users, a shorter context"
    if not request.engine.several_cards:
        hint = "a faster GPU or a shorter context"
    fastest = int(left[np.argmin(points.time[left])])
    return NothingFits(
        f"nothing that fits is as fast as asked: {' and '.join(said)}",
        f"this would do: {hint}",
        {
            "model": request.spec.name,
            "budget": request.budget,
            "ttft_target_s": request.ttft,
            "tpot_target_s": request.tpot,
            "fastest": str(table.space.configuration(fastest)),
            "fastest_ttft_s": float(points.ttft[fastest]),
            "fastest_tpot_s": float(points.tpot[fastest]),
        },
    )


def _words(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
