"""How wide an interval must be, from the residuals of left-out rows.

Four numbers. A kind's misfit is log noise that the fit leaves unexplained on that kind of task,
whatever the model: it is added to a model's own spread in quadrature, so that a kind whose tables
scatter makes a well-known model's interval as much wider as an unknown one's, and no more. Its
misfit of weights is what 4-bit weights lose beside all noise, in retention: what is predicted to
lose 1 % is as far off as what is predicted to lose 4 %. Long reasoning, with few such rows, takes
reasoning's. z, for all rows: the smallest half-width, in predicted standard deviations, that
would have covered the wanted share (split conformal prediction, with the predicted spread as the
scale). These three come from models that were left out, whose tables stay in the fit. What a new
table brings with it (its harness, its tasks, how it made a format) is told by sources that were
left out whole, the model's own rows among them or not: a misfit between sources, log noise again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.interval import LEVEL
from ...planner.accuracy.model_sensitivity import (
    COMPONENTS,
    NEW_CACHE_SPREAD,
    ModelSensitivity,
)
from ...planner.accuracy.predictor import Predictor
from .accuracy_rows import KINDS, AccuracyRow
from .cross_validation import Z_GRID, Collector, HeldOut, Misfit, Misfits, groups, without
from .mixed_effects import REFERENCE_KIND, KnownModel
from .published_sources import origin

FEWEST = 20
"""Rows of a kind, or of those that lose a tenth or more, that say what its misfit is."""
FALLEN, LEVEL_BELOW = 0.9, 0.75
"""Rows that keep less are what intervals are for: so many of a kind's are covered at least. Of all
kinds together more are."""
LEVEL_OF_WEIGHTS = (1 + LEVEL) / 2
"""Scores of 4-bit weights miss an interval below alone, since none lies above no loss. The lower
end misses no more of them than one end may, where FEWEST models or more say what one in twenty
loses; else no more than both ends."""
MISFIT_STEP, MISFIT_STEPS = 0.125, 32
"""Misfits that are tried: up to 4, a factor of 55 of the noise."""
WEIGHTS_STEP = 0.01
"""The same of 4-bit weights, in retention."""
FOUR = 4
SOURCES_BELOW = 0.8
"""Of a left-out source's rows that lose a tenth or more, so many are covered."""
BASES = OWN, SISTER, FAMILY, STRANGER = (
    "own rows",
    "a sister's rows",
    "its family's rows",
    "no family",
)
"""What a prediction rests on."""


def as_planned(
    predictor: Predictor, model: KnownModel, models: Mapping[str, KnownModel]
) -> tuple[ModelSensitivity, str]:
    """A model's scales as a plan finds them, and what they rest on."""
    fitted = predictor.models
    family = model.features.family
    alike = fitted.alike(family, model.shape)
    if model.key in alike:
        return fitted.with_rows(model.key, model.features), OWN
    sister = fitted.most_sensitive(alike)
    if sister is not None:
        of_sister = models[sister].features
        features = replace(model.features, outliers=of_sister.outliers, ranges=of_sister.ranges)
        return fitted.sister(sister, features), SISTER
    kin = any(line["family"] == family for line in predictor.payload["models"].values())
    unseen = fitted.unseen(model.features)
    if kin:
        return unseen, FAMILY
    if not model.shape[2]:  # latents: no KV heads
        wider = [1.0 if name == "weight" else NEW_CACHE_SPREAD for name in COMPONENTS]
        unseen = replace(unseen, sd=unseen.sd * np.array(wider), provenance="unknown")
    return unseen, STRANGER


def hold_out_sources(
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    folder: Path,
    start: Mapping[str, float],
    z: Mapping[str, float],
) -> tuple[Collector, tuple[str, ...]]:
    """Predict the rows of every source from a fit without that source, as a plan would: what a
    table that nobody has seen gets. With what each row's prediction rests on."""
    by_source: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_source.setdefault(origin(row.source), []).append(i)
    collected, bases = Collector(rows, models), [""] * len(rows)
    for out in by_source.values():
        predictor = without(out, rows, models, folder, start, z)
        for key in dict.fromkeys(rows[i].model for i in out):
            own = [i for i in out if rows[i].model == key]
            sensitivity, basis = as_planned(predictor, models[key], models)
            collected.add(own, predictor, sensitivity)
            for i in own:
                bases[i] = basis
    return collected, tuple(bases)


def source_misfit(left_out: Collector, misfits: Misfits) -> float:
    """The least log noise between sources by which intervals that allow for the kinds' `misfits`
    cover LEVEL of left-out sources' rows of caches, and SOURCES_BELOW of those that lose a tenth or
    more; counted by rows and, as a new table is one more source, by sources alike with one more of
    which nothing is covered (conformal prediction where draws come in groups)."""
    rows = left_out.rows
    cache = [i for i, row in enumerate(rows) if row.quantizes_cache]
    fallen = [i for i in cache if rows[i].retention < FALLEN]
    wanted = [(cache, LEVEL)] + [(fallen, SOURCES_BELOW)] * bool(fallen)
    for step in range(MISFIT_STEPS):
        held = left_out.covered(None, misfits, MISFIT_STEP * step)
        if all(_covers([rows[i] for i in some], [held[i] for i in some], x) for some, x in wanted):
            return MISFIT_STEP * step
    return MISFIT_STEP * MISFIT_STEPS


def _covers(rows: Sequence[AccuracyRow], held: Sequence[bool], share: float) -> bool:
    by_rows, by_sources = shares(rows, held)
    sources = len({origin(row.source) for row in rows})
    return min(by_rows, by_sources * sources / (sources + 1)) >= share - 1e-9


def shares(rows: Sequence[AccuracyRow], held: Sequence[bool]) -> tuple[float, float]:
    """Share of rows that are held, counted by rows and by sources alike."""
    by_source: dict[str, list[bool]] = {}
    for row, is_held in zip(rows, held, strict=True):
        by_source.setdefault(origin(row.source), []).append(is_held)
    alike = [np.mean(each) for each in by_source.values()]
    return float(np.mean(held)), float(np.mean(alike))


def kind_misfits(left_out: Collector, z: float) -> dict[str, Misfit]:
    """For each kind of task the least misfits by which the intervals of `z` cover LEVEL of its
    rows: those with a quantized cache, and LEVEL_BELOW of those that lose a tenth or more; and
    LEVEL_OF_WEIGHTS of those of 4-bit weights alone."""
    cache = [row.quantizes_cache for row in left_out.rows]
    weights = [
        not of_cache and row.weight_bits <= FOUR
        for of_cache, row in zip(cache, left_out.rows, strict=True)
    ]
    own_cache, own_weights = (_by_kind(left_out.rows, chosen) for chosen in (cache, weights))
    of_cache = _least(
        own_cache,
        dict.fromkeys(own_cache, LEVEL),
        lambda tried: left_out.covered(z, {k: Misfit(cache=x) for k, x in tried.items()}),
        left_out.rows,
        MISFIT_STEP,
    )
    many = {
        kind: len(groups([left_out.rows[i] for i in own], left_out.models)) >= FEWEST
        for kind, own in own_weights.items()
    }
    of_weights = _least(
        own_weights,
        {kind: LEVEL_OF_WEIGHTS if is_many else LEVEL for kind, is_many in many.items()},
        lambda tried: left_out.covered(z, {k: Misfit(weights=x) for k, x in tried.items()}),
        left_out.rows,
        WEIGHTS_STEP,
    )
    if REFERENCE_KIND in of_weights:  # a longer chain of reasoning is no surer
        least = max(of_weights.get("long_reasoning", 0.0), of_weights[REFERENCE_KIND])
        of_weights["long_reasoning"] = least
    return {
        kind: Misfit(of_cache.get(kind, 0.0), of_weights.get(kind, 0.0))
        for kind in KINDS
        if kind in of_cache or kind in of_weights
    }


def _by_kind(rows: Sequence[AccuracyRow], chosen: Sequence[bool]) -> dict[str, list[int]]:
    """Numbers of the chosen rows of each kind that has FEWEST."""
    found = {
        kind: [i for i, row in enumerate(rows) if chosen[i] and row.kind == kind] for kind in KINDS
    }
    return {kind: own for kind, own in found.items() if len(own) >= FEWEST}


def _least(
    of_kind: Mapping[str, Sequence[int]],
    levels: Mapping[str, float],
    covered: Callable[[Mapping[str, float]], Mapping[int, bool]],
    rows: Sequence[AccuracyRow],
    step: float,
) -> dict[str, float]:
    """The least multiple of `step` for each kind by which enough of its rows are covered."""
    least, most = dict.fromkeys(of_kind, 0), dict.fromkeys(of_kind, MISFIT_STEPS)
    while any(least[kind] < most[kind] for kind in of_kind):
        tried = {kind: (least[kind] + most[kind]) // 2 for kind in of_kind}
        held = covered({kind: step * number for kind, number in tried.items()})
        for kind, own in of_kind.items():
            if _enough(own, rows, held, levels[kind]):
                most[kind] = tried[kind]
            else:
                least[kind] = min(tried[kind] + 1, most[kind])
    return {kind: step * number for kind, number in most.items()}


def _enough(
    own: Sequence[int], rows: Sequence[AccuracyRow], held: Mapping[int, bool], level: float
) -> bool:
    """Whether as many of a kind's rows are covered as there must be."""
    fallen = [i for i in own if rows[i].retention < FALLEN]
    wanted = [(own, level)] + [(fallen, LEVEL_BELOW)] * (len(fallen) >= FEWEST)
    return all(sum(held[i] for i in some) >= share * len(some) for some, share in wanted)


def conformal_z(held_out: HeldOut, models: Mapping[str, KnownModel] | None = None) -> float:
    """The z whose intervals cover LEVEL of the left-out rows of caches, and of those of weights
    alone, counted by rows and, of these `models`, each alike.

    Counting models and not rows keeps the tables with most rows from deciding what a stranger gets,
    and weights, which lose little, do not make a cache's interval narrower: of all ways to count,
    the widest interval is taken. Rows that no interval holds count as beyond the widest of Z_GRID;
    the result is at most that one, and 0 for no rows.
    """
    needed = held_out.needed_z()
    of_cache = np.array([row.quantizes_cache for row in held_out.rows], dtype=bool)
    found_z = [0.0]
    for part in (np.flatnonzero(of_cache), np.flatnonzero(~of_cache)):
        if len(part):
            found_z.append(_quantile(needed[part], np.full(len(part), 1.0 / len(part))))
            if models is not None:
                by_model = np.zeros(len(part))
                by_group = groups([held_out.rows[i] for i in part], models)
                for out in by_group.values():
                    by_model[out] = 1.0 / (len(by_group) * len(out))
                found_z.append(_quantile(needed[part], by_model))
    return min(max(found_z), float(Z_GRID[-1]))


def _quantile(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) * len(values) / (len(values) + 1)
    # what is LEVEL but for rounding has reached it
    place = int(np.searchsorted(reached, LEVEL - 1e-9))
    return float(values[order][min(place, len(values) - 1)])
