"""Times that were asked for, `--ttft 2s --tpot 30ms`, as a constraint on what may be recommended.

The expected time decides, as it does everywhere; where the interval's high end is beyond the
target, a note says so.
"""

import shlex
from dataclasses import replace

import numpy as np

from ..errors import BadInput, NothingFits
from ..units import format_seconds, seconds_for
from .choose import USABLE, safe_points
from .evaluate import Point
from .placed.questions import Table
from .point_arrays import Mask
from .request import Request


def fast_enough(request: Request, table: Table, fitting: Mask) -> Table:
    """The table without what is too slow. Raises NothingFits where nothing that fits is fast
    enough, or where nothing fits and nothing is; BadInput where no seconds are predicted."""
    points = table.points
    kept = in_time(request, table)
    good = points.retention >= USABLE
    if request.accepted_loss is not None and not request.accept_risk:
        good &= safe_points(points, request.accepted_loss)
    room = bool((good & fitting).any())
    good &= fitting | (not room)
    timed = _predicted(table)
    if good.any() and not (good & timed).any():
        raise _not_predicted(request)
    if good.any() and not (good & kept).any():
        raise _too_slow(request, table, good & timed, room)
    usable = np.where(kept, points.retention, 0.0)
    low = np.where(kept, points.low, 0.0)
    narrowed = replace(points, retention=usable, low=low, allowed=points.allowed & kept)
    return replace(table, points=narrowed)


def in_time(request: Request, table: Table) -> Mask:
    """Points whose expected seconds keep what was asked; all of them where nothing was."""
    points = table.points
    kept = np.ones(len(points.memory), dtype=bool)
    if request.ttft is not None:
        kept &= points.ttft <= request.ttft
    if request.tpot is not None:
        kept &= points.tpot <= request.tpot
    return kept & _predicted(table) if has_targets(request) else kept


def keeps_time(request: Request, seconds: tuple[float, float] | None) -> bool:
    """The same of one configuration's TTFT and TPOT; None: they are not predicted."""
    if seconds is None:
        return not has_targets(request)
    targets = request.ttft, request.tpot
    return all(t is None or s <= t for s, t in zip(seconds, targets, strict=True))


def has_targets(request: Request) -> bool:
    """Whether times were asked for."""
    return request.ttft is not None or request.tpot is not None


def check_predicted(request: Request, table: Table) -> None:
    """Raise BadInput where times were asked for, and the engine's are not predicted."""
    if has_targets(request) and not _predicted(table).any():
        raise _not_predicted(request)


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
        f"{name} is within {format_seconds(target)} as expected, and {format_seconds(high)} at the "
        "high end of its interval"
        for name, target, high in ends
        if target is not None and high > target
    ]


def _too_slow(request: Request, table: Table, good: Mask, room: bool) -> NothingFits:
    """None of `good` is fast enough; `room`: whether they fit."""
    points, left = table.points, np.flatnonzero(good)
    asked = [("TTFT", request.ttft, points.ttft), ("TPOT", request.tpot, points.tpot)]
    given = [(name, target, times[left]) for name, target, times in asked if target is not None]
    missed = [
        f"{name} {format_seconds(target)} (the fastest has {seconds_for(float(times.min()))})"
        for name, target, times in given
        if times.min() > target
    ]
    both = " and ".join(f"{name} {format_seconds(target)}" for name, target, _ in given)
    fastest = int(left[np.argmin(points.time[left])])
    return NothingFits(
        f"{'nothing that fits' if room else 'nothing usable fits, and none'} is as fast as asked: "
        f"{' and '.join(missed) or f'{both} together'}",
        f"what helps: {_faster_hint(request, room)}",
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


def _faster_hint(request: Request, room: bool) -> str:
    """What would be faster. More cards are for an engine that shares each layer among them."""
    from ..hardware.gpu_set import gpus_text, more_cards

    ways = ["a faster GPU" + " with more memory" * (not room)]
    more = more_cards(request.machine.gpus) if request.engine.serves else ()
    if more:
        ways.append(f"more of them (--gpu {shlex.quote(gpus_text(more))})")
    if request.workload.batch > 1:
        ways.append("fewer users" if request.at_once == "users" else "a smaller batch")
    return f"{', '.join(ways)} or a shorter context"


def _predicted(table: Table) -> Mask:
    """Points whose seconds are predicted; others hold bytes that stand for them."""
    placements = getattr(table, "placements", None)
    if placements is None:
        return np.ones(len(table.points.memory), dtype=bool)
    return np.array([p is not None and p.ttft is not None for p in placements])


def _not_predicted(request: Request) -> BadInput:
    asked = (("--ttft", request.ttft), ("--tpot", request.tpot))
    names = " and ".join(name for name, target in asked if target is not None)
    return BadInput(
        f"{request.engine.name}'s speed is not predicted here, so nothing can be held to {names}",
        f"leave {names} out, or --engine any, which takes one whose seconds are predicted",
    )
