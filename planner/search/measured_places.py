"""Configurations of a space that were run, and those beside them: what was measured is put in."""

from collections.abc import Collection, Iterator

import numpy as np

from ..accuracy import predict as accuracy
from ..accuracy.prediction import AccuracyGrid
from ..formats.configuration import Configuration, Protection
from ..formats.space import PROTECTED_BITS, KVLayout, Space
from ..models.spec import ModelSpec

Place = tuple[int, int, int]
"""Indices of weights, format and chunk."""


def with_measured(
    spec: ModelSpec,
    space: Space,
    context: int,
    grid: AccuracyGrid,
    task: str | None,
) -> tuple[accuracy.Floats, accuracy.Floats]:
    """Retention and its lower end [W, F, C], with what was measured where it was, and in order with
    that beside it."""
    retention = np.broadcast_to(grid.retention[:, :, None], space.shape)
    low = np.broadcast_to(grid.low[:, :, None], space.shape)
    measured = accuracy.predictor_for(spec).measured
    measured_at: list[Place] = [
        (*where, c)
        for run in measured.configurations()
        if (where := _find(space, run)) is not None
        for c, chunk in enumerate(space.chunks)
        if measured.of(run.with_chunk(chunk), context)
    ]
    if not measured_at:
        return retention, low
    retention, low = retention.copy(), low.copy()

    def put(places: Collection[Place]) -> None:
        configs = [space.configuration(int(np.ravel_multi_index(at, space.shape))) for at in places]
        kept = accuracy.predict_many(spec, configs, context, task=task)
        for place, known in zip(places, kept, strict=True):
            retention[place], low[place] = known.retention, known.low

    put(measured_at)
    put({at for run in measured_at for at in _out_of_order(space, run, retention, low)})
    return retention, low


def _out_of_order(
    space: Space, run: Place, retention: accuracy.Floats, low: accuracy.Floats
) -> Iterator[Place]:
    """Places that are like one that was run but for bits, and promise less with no fewer of them,
    or more with no more."""
    w, f, c = run
    bits = np.array(space.weights), space.k_bits, space.v_bits
    same = (space.layout == space.layout[f]) & (space.protection == space.protection[f])
    for sign in (1, -1):
        weights, keys, values = (sign * x for x in bits)
        more = same & (keys >= keys[f]) & (values >= values[f])
        more = more & (weights >= weights[w])[:, None]
        for kept in (sign * retention[:, :, c], sign * low[:, :, c]):
            yield from ((int(i), int(j), c) for i, j in np.argwhere(more & (kept < kept[w, f])))


def _find(space: Space, config: Configuration) -> tuple[int, int] | None:
    """(weights, format) of a configuration, whatever its chunk; None where it is not in."""
    layout = KVLayout(
        config.granularity,
        config.group_size,
        config.block_tokens,
        config.smoothing,
        config.rotation,
        config.residual,
    )
    protected = config.protection
    layers = protected.layers if protected is not None else ()
    named = (config.k_format, config.v_format)
    kept = Protection(layers, PROTECTED_BITS, PROTECTED_BITS) if layers else None
    if (
        config.weight_bits not in space.weights
        or config.activation_bits < 16
        or layers not in space.protections
        or protected != kept
        or config.clip < 100
        or (any(named) and named not in space.kv_formats)
    ):
        return None
    same = np.array([other == layout for other in space.layouts])[space.layout]
    same &= (space.k_bits == config.k_bits) & (space.v_bits == config.v_bits)
    same &= space.protection == space.protections.index(layers)
    if space.kv_formats:
        same &= np.array([pair == named for pair in space.kv_formats])
    places = np.flatnonzero(same)
    return (space.weights.index(config.weight_bits), int(places[0])) if len(places) else None
