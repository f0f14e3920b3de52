"""Sentences about a plan: why a configuration won, the next steps in memory, and warnings."""

from collections.abc import Sequence

import numpy as np

from ..accuracy.prediction import Accuracy
from ..local_model import loadable, without_weights
from ..memory import estimate as memory
from ..serving import Serving
from ..units import (
    budget_for,
    format_bytes,
    format_count,
    format_percent,
    format_time,
    format_tokens,
)
from .choose import Choice, outdone_by
from .evaluate import Point
from .gpu_memory import gpu_notes
from .notes import configuration_notes
from .placed.questions import Table, roomy_points
from .request import SAFE_LOSS, Request
from .targets import target_notes
from .tie_breaking import ROOMY_TIME


def reasons_for(
    request: Request,
    table: Table,
    fitting: np.ndarray,
    choice: Choice,
    point: Point,
    shown: Sequence[int],
) -> tuple[str, ...]:
    """Plain sentences, the most important first. `shown`: the points in the table beside it."""
    return (
        _fits(request, point),
        _best(request, table, fitting, choice, point),
        *_why_not_another(table, choice.index, shown),
        *(_where(request, point) or _why_weights(request, table, point)),
        *_why_exact(request, table, choice),
        *_why_chunk(request, point),
        *_time(request, point),
    )


def _fits(request: Request, point: Point) -> str:
    memory = point.memory
    share = f"{format_bytes(memory.total_high)}, which is {memory.total_high / request.budget:.0%}"
    if memory.ends:
        return (
            f"It fits however {request.spec.model_type}, which is not known, is read: at most "
            f"{share} of the budget."
        )
    return f"It fits: {format_bytes(memory.total)} predicted, at most {share} of the budget."


def _best(request: Request, table: Table, fitting: np.ndarray, choice: Choice, point: Point) -> str:
    low, kept = table.points.low[choice.index], table.points.retention[choice.index]
    count = f"Of {len(table.space):,} configurations {int(fitting.sum()):,} fit"
    promise = f"{format_percent(kept)} of the score predicted, at least {format_percent(low)}"
    if point.accuracy.low_task != point.accuracy.task:
        promise += f" of {point.accuracy.low_task.replace('_', ' ')}"
    loss = request.accepted_loss
    limit = "" if loss is None else f" that keep at least {format_percent(1 - loss)} of the score"
    if loss is not None and not choice.safe:
        limit += " by the prediction, though no interval promises it,"
    task = f" of {point.accuracy.task.replace('_', ' ')}"
    saved = f", in chunks that need {format_bytes(choice.saved)} less and are as fast"
    chunk = saved if choice.saved else ""
    if request.objective == "accuracy":
        rest = (
            f"; {choice.alike:,} promise as much within what their intervals resolve, and of "
            f"these it is the simplest{chunk}"
            if choice.alike > 1
            else ""
        )
        return f"{count}; of those{limit} it keeps the most{task} ({promise}){rest}."
    what = (
        "is the fastest for this prompt and output"
        if request.objective == "latency"
        else ("needs the least memory")
    )
    return f"{count}; of those{limit} it {what}, or as good and simpler ({promise}{task})."


def _why_not_another(table: Table, chosen: int, shown: Sequence[int]) -> tuple[str, ...]:
    """Where a point of the table is better in memory, TTFT and retention: why it is not the one."""
    points, better = table.points, outdone_by(table.points, chosen, shown)
    if not better:
        return ()
    first = min(better, key=lambda i: int(points.memory[i]))
    less = int(points.memory[chosen] - points.memory[first])
    gains = [f"needs {format_bytes(less)} less"] if less else ["needs no more memory"]
    pace = points.ttft[chosen] / points.ttft[first]
    gains.append(f"has its first token {pace:.2f}x as fast" if pace > 1.005 else "is no slower")
    gains.append(f"promises no less ({format_percent(points.low[first])})")
    if not points.usual[first]:
        why = "its bits or its chunks are not what people run"
    elif not points.allowed[first]:
        why = "2-bit keys or values need the model's own calibration"
    else:
        why = "it has more special options, and what it gains may be less than intervals resolve"
    others = f"; so do {len(better) - 1} more" if len(better) > 1 else ""
    return (
        f"In the table, {table.space.configuration(first)} {', '.join(gains)}{others}: passed over "
        f"because {why}.",
    )


def _front_notes(request: Request, point: Point) -> list[str]:
    """What a person should know who runs the engine inside another program."""
    front = request.engine.front
    if not front:
        return []
    if request.engine.serves:
        return []  # the engine says what it needs
    said = dict(point.placement.ollama) if point.placement is not None else {}
    missing = said.get("missing", []) if front == "ollama" else []
    notes = [f"{front} runs {request.engine.name}: the bytes are those of {request.engine.name}"]
    return [*notes, *(str(one) for one in missing)]  # type: ignore[attr-defined]


def _where(request: Request, point: Point) -> tuple[str, ...]:
    """Which part lies where; nothing of engines that keep all on one device."""
    placed = point.placement
    if placed is None:
        return ()
    if placed.serving is not None:
        return _serves(request, placed.serving)
    host = format_bytes(placed.host.total)
    if placed.on_host_only:
        return (f"All of it runs on the processor: {host} of host memory.",)
    whole = placed.device_layers == placed.layers
    here = "all layers" if whole else f"{placed.device_layers} of {placed.layers} layers"
    if placed.host_experts:
        here += f" (less the experts of the first {placed.host_experts})"
    unified = request.hardware is not None and request.hardware.unified
    if unified and whole and not placed.host_experts:
        return ("The device holds all layers, in memory that is the host's too.",)
    rest = [] if whole else ["the other layers"]
    rest += ["those experts"] if placed.host_experts else []
    held = ", ".join([*rest, "the token table and the buffers beside it"])
    return (f"The device holds {here}; host memory {held}, {host}.",)


def _serves(request: Request, serving: Serving) -> tuple[str, ...]:
    """For whom the cache has room, and how the cards share the model."""
    each = (
        f"At its low end the cache holds {format_count(serving.at_once_mean, 'sequence')} of the "
        f"asked lengths at once, {serving.at_once_worst:,} if all are of the longest; it starts "
        f"with max_model_len up to {serving.longest:,}."
    )
    if len(serving.cards) == 1:
        return (each,)
    return (each, f"{len(serving.cards)} cards share the model as {serving.parallel}.")


def _why_weights(request: Request, table: Table, point: Point) -> tuple[str, ...]:
    bits = point.config.weight_bits
    wider = [
        (b, int(size))
        for b, size in zip(table.space.weights, table.weight_sizes(), strict=True)
        if b > bits
    ]
    if not wider:
        return ()
    b, size = min(wider)
    if size > request.budget:
        return (
            f"Weights at {b} bits alone take {format_bytes(size)}, more than the budget; at {bits} "
            f"bits they take {format_bytes(point.memory.weights)}.",
        )
    return (
        f"Weights at {bits} bits take {format_bytes(point.memory.weights)} instead of "
        f"{format_bytes(size)} at {b}.",
    )


def _why_exact(request: Request, table: Table, choice: Choice) -> tuple[str, ...]:
    """Why a larger file is taken than what promises the same needs."""
    roomy = roomy_points(request, table, request.budget)
    if roomy is None or not roomy[choice.index] or request.objective != "accuracy":
        return ()
    return (
        f"Half of the memory stays free: of the files that cost at most {ROOMY_TIME - 1:.0%} more "
        "time a token it is the most exact.",
    )


def _why_chunk(request: Request, point: Point) -> tuple[str, ...]:
    if point.config.chunk is None or point.placement is not None:
        return ()
    whole = memory.estimate(
        request.spec,
        point.config.with_chunk(None),
        request.workload,
        request.engine,
        request.hardware,
    )
    saved = whole.total - point.memory.total
    if saved <= 0:
        return ()
    return (
        f"Prefill in chunks of {format_tokens(point.config.chunk)} tokens saves "
        f"{format_bytes(saved)} against one shot.",
    )


def _time(request: Request, point: Point) -> tuple[str, ...]:
    if point.latency is None or request.hardware is None:
        return ()
    return (
        f"On {request.hardware.name} the first token is predicted after "
        f"{format_time(point.latency.ttft_s)} and each further one after "
        f"{format_time(point.latency.tpot_s)} ({point.latency.kind}).",
    )


def steps_from(point: Point, up: Point | None, down: Point | None) -> tuple[str, ...]:
    """What the next step up and down in memory would buy."""
    steps = []
    if up is not None:
        more = up.memory.total_high - point.memory.total_high
        steps.append(
            f"Up: {up.config} needs up to {budget_for(up.memory.total_high, ' ')} "
            f"({format_bytes(more)} more) and keeps {_kept(up)}{_faster(point, up)}."
        )
    if down is not None:
        less = point.memory.total_high - down.memory.total_high
        steps.append(
            f"Down: {down.config} needs up to {budget_for(down.memory.total_high, ' ')} "
            f"({format_bytes(less)} less) and keeps {_kept(down)}{_faster(point, down)}."
        )
    return tuple(steps)


def _kept(point: Point) -> str:
    kept = point.accuracy
    return f"{format_percent(kept.retention)}, at least {format_percent(kept.low)}"


def _faster(point: Point, other: Point) -> str:
    if point.seconds is None or other.seconds is None:
        return ""
    ratio = other.seconds / point.seconds
    if 0.95 < ratio < 1.05:
        return ""
    return f", {1 / ratio:.1f}x as fast" if ratio < 1 else f", {ratio:.1f}x as slow"


def warnings_for(request: Request, point: Point) -> tuple[str, ...]:
    """What a person should know before believing the plan."""
    spec = request.spec
    warnings = list(spec.warnings)
    warnings += [str(bound) for bound in spec.bounds]
    warnings += configuration_notes(spec, point.config, request.workload, request.engine)
    warnings += point.accuracy.breaks
    if point.accuracy.low < 1 - SAFE_LOSS:
        warnings.append(
            f"this may lose {format_percent(1 - point.accuracy.low)} of the score of "
            f"{point.accuracy.task.replace('_', ' ')}, "
            f"{format_percent(1 - point.accuracy.retention)} by the prediction: think of a smaller "
            "model, a shorter context or more memory"
        )
    elif request.task is None:
        kinds = point.accuracy.less_certain(1 - SAFE_LOSS)
        warnings += [_less_certain(point.accuracy, kind) for kind in kinds]
    obstacle = request.engine.cannot_run(spec, request.hardware)
    if obstacle is not None:
        warnings.append(f"planned only: {obstacle}")
    elif without_weights(spec) and (request.engine.serves or not request.engine.places):
        warnings.append(f"no weights lie at {loadable(spec)}: running it needs them")
    warnings += _front_notes(request, point)
    warnings += target_notes(request, point)
    warnings += gpu_notes(request)
    warnings += [note for note in point.memory.notes if note not in warnings]
    warnings += [f"accuracy: {note}" for note in point.accuracy.notes]
    return tuple(warnings)


def _less_certain(accuracy: Accuracy, kind: str) -> str:
    low, named = accuracy.tasks[kind].low, kind.replace("_", " ")
    return (
        f"accuracy: {named} is not in the promise: its rows tell little of such a model, and it "
        f"may keep as little as {format_percent(low)}; --task {kind.replace('_', '-')} plans for it"
    )
