"""A calibration replayed on rows that are there: how right are a few runs about all others?

    python -m kvpareto.calibration.evidence.replay [--write]

The design chooses runs among configurations that were measured (seven recall models, four
pretrained ones), sees their rows alone, and the fit predicts the rest. Shown are the error over
all of the rest, and what matters to a plan: of the points that it may recommend (their lower end
keeps nine tenths), along the frontier that is predicted, how far each pick is from what was
promised, and from the best that was measured for no more memory. `--write` puts
the table into the docs.
"""

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.model_sensitivity import shape_of
from ...planner.accuracy.predict import published
from ...planner.formats.configuration import Configuration
from ..design.candidates import LONG, anchors
from ..design.telling_run import SAFE, TIE, Points, TellingDesign
from ..fit.accuracy_rows import AccuracyRow
from ..fit.calibrated_noise import NoiseRows, fit_calibrated_noise, prior_of
from ..fit.leave_out import leave_out
from ..fit.measured_models import SHIPPED
from ..fit.mixed_effects import KnownModel
from .marked_tables import markdown_table, write_tables
from .replayed_models import (
    KEY,
    RECALL_MODELS,
    SPREADS,
    Measured,
    calibrated,
    pretrained,
    recall_grid,
    sensitivity_of,
)

MOST_KEPT = 1.2
SMALL_CACHE = 0.2
"""Share of the unquantized cache's bytes below which picks are apart: there formats fail."""
FIFTH = 0.2
Point = tuple[Configuration, int]
"""A configuration and a context."""


def chosen_runs(measured: Measured, count: int) -> list[Configuration]:
    """What a calibration of `count` runs measures, LONG or more, among what there is: its anchors,
    or what is nearest to them, then what tells most."""
    design, points, configs = _designed(measured)
    weights = {config.weight_bits for config in configs}
    tried = {_nearest(configs, one): None for one in anchors(tuple(weights), None, LONG)[1:]}
    kept = np.array([min(row.retention, 1.0) for row in points.rows])
    while len(tried) < min(count, len(configs)):
        seen = np.where(np.isin(points.owner, list(tried)), kept, np.nan)
        last = len(tried) == min(count, len(configs)) - 1
        chosen = design.next(_rows_of(points, tried), tried, seen, last)
        assert chosen is not None  # some are left
        tried[chosen] = None
    return [configs[i] for i in tried]


def expected_error(measured: Measured, chosen: Sequence[Configuration]) -> float:
    """The error of all that was not chosen as a calibration itself expects it at its end."""
    design, points, configs = _designed(measured)
    tried = [configs.index(config) for config in chosen]
    return design.expected(_rows_of(points, tried), tried)


def _designed(measured: Measured) -> tuple[TellingDesign, Points, list[Configuration]]:
    """The design of a calibration among what there is, and its candidates."""
    configs = list(measured.rows)
    rows = [
        (i, row) for i, here in enumerate(measured.rows.values()) for by in here.values()
        for row in by
    ]  # fmt: skip
    points = Points(
        [row for _, row in rows],
        np.array([i for i, _ in rows]),
        np.array([measured.share(config) for config in configs]),
    )
    sensitivity = sensitivity_of(measured)
    model = KnownModel(KEY, sensitivity.features, (), shape_of(measured.spec))
    return TellingDesign(points, model, prior_of(published(), sensitivity)), points, configs


def _rows_of(points: Points, tried: Iterable[int]) -> list[AccuracyRow]:
    """The rows of candidates, in the order in which they were tried."""
    owned: dict[int, list[AccuracyRow]] = {}
    for owner, row in zip(points.owner.tolist(), points.rows, strict=True):
        owned.setdefault(owner, []).append(_bounded(row))
    return [row for candidate in tried for row in owned[candidate]]


@dataclass(frozen=True)
class Replay:
    """Predictions after some runs: of points that were not run, and of the frontier's picks."""

    runs: int
    points: int
    error: float
    """Mean absolute error of the points that were not run."""
    expected: float
    """The same as the calibration expects it."""
    sampling: float
    """The same if every prediction were right: what was measured has errors of its own."""
    error_usable: float
    """Mean absolute error where nine tenths are kept."""
    promise: float
    """Largest difference between a pick's promise and its measurement, at SMALL_CACHE or more."""
    promise_small: float
    """The same for smaller caches."""
    chance: float
    """What sampling makes of the former two where every promise is right, in 19 of 20 cases at
    most."""
    short: float
    """Largest gap of a pick to the best that was measured for no more memory."""


def replay(measured: Measured, count: int) -> Replay:
    """Choose `count` runs, fit them, and hold the rest to it."""
    chosen = chosen_runs(measured, count)
    predicted, low = _predicted(measured, chosen)
    errors, usable, sampled = [], [], []
    promise, promise_small, short = [0.0], [0.0], [0.0]
    unsure: list[float] = []
    for context in measured.contexts:
        points = []
        for config, by in measured.rows.items():
            kept = measured.kept(config, context)
            if context not in by or kept is None:
                continue
            known = config in chosen
            said = kept.retention if known else predicted[config, context]
            if not known:
                errors.append(abs(said - kept.retention))
                usable += [errors[-1]] * (kept.retention >= 0.9)
                sampled.append(kept.sd * math.sqrt(2 / math.pi))
            least = kept.retention if known else low[config, context]
            spread = 0.0 if known else kept.sd
            share, bits = measured.share(config), config.weight_bits
            points.append((share, said, kept.retention, least, spread, bits))
        for bits in {point[-1] for point in points}:
            front = sorted((p for p in points if p[-1] == bits), key=lambda p: (p[0], -p[1]))
            best_said = best_kept = 0.0
            for share, said, kept_here, least, spread, _ in front:
                best_kept = max(best_kept, kept_here)
                if least >= SAFE and said > best_said + TIE:
                    best_said = said
                    place = promise_small if share < SMALL_CACHE else promise
                    place.append(abs(said - kept_here))
                    short.append(best_kept - kept_here)
                    unsure.append(spread)
    return Replay(
        runs=len(chosen),
        points=len(errors),
        error=float(np.mean(errors)),
        expected=expected_error(measured, chosen),
        sampling=float(np.mean(sampled)),
        error_usable=float(np.mean(usable)),
        promise=max(promise),
        promise_small=max(promise_small),
        chance=by_chance(unsure),
        short=max(short),
    )


def by_chance(spreads: Sequence[float]) -> float:
    """What the largest of independent normal errors with these standard deviations stays below in
    19 of 20 cases; 0 where there is none."""
    some = [spread for spread in spreads if spread > 0]
    if not some:
        return 0.0
    low, high = 0.0, 10 * max(some)
    for _ in range(40):
        middle = (low + high) / 2
        below = math.prod(math.erf(middle / spread / math.sqrt(2)) for spread in some)
        low, high = (middle, high) if below < 0.95 else (low, middle)
    return high


def _predicted(
    measured: Measured, chosen: Sequence[Configuration]
) -> tuple[dict[Point, float], dict[Point, float]]:
    """Retention of every point by a fit of the chosen runs' rows, and the interval's lower end."""
    shipped = published()
    sensitivity = sensitivity_of(measured)
    model = KnownModel(KEY, sensitivity.features, (), shape_of(measured.spec))
    rows, groups = [], []
    for number, config in enumerate(chosen):
        for by in measured.rows[config].values():
            rows += [_bounded(row) for row in by]
            groups += [number] * len(by)
    prior = prior_of(shipped, sensitivity)
    noise = fit_calibrated_noise(rows, model, prior).noise
    shift = leave_out(rows, groups, model, prior).shift
    places, every = [], []
    for config, contexts in measured.rows.items():
        for context, here in contexts.items():
            places += [(config, context)] * len(here)
            every += list(here)
    data = NoiseRows(every, model)
    return _means(places, data.predict(noise)), _means(places, data.predict(noise, shift))


def _means(places: Sequence[Point], kept: Floats) -> dict[Point, float]:
    """The mean over the kinds of each point."""
    found: dict[Point, list[float]] = {}
    for place, one in zip(places, kept.tolist(), strict=True):
        found.setdefault(place, []).append(one)
    return {place: sum(values) / len(values) for place, values in found.items()}


def _bounded(row: AccuracyRow) -> AccuracyRow:
    return replace(row, retention=min(max(row.retention, 0.0), MOST_KEPT))


def _nearest(configs: Sequence[Configuration], wanted: Configuration) -> int:
    """The measured configuration that is most like an anchor: bits first, then what shares a
    scale, then transforms and windows."""

    def distance(config: Configuration) -> tuple[float, str]:
        bits = sum(
            abs(np.log2(getattr(config, name) / getattr(wanted, name)))
            for name in ("weight_bits", "k_bits", "v_bits")
        )
        other = 8.0 * (config.granularity is not wanted.granularity)
        other += 5 * (config.smoothing != wanted.smoothing) + 5 * (
            config.rotation != wanted.rotation
        )
        other += 3 * (config.residual > 0) + 2 * (config.protection is not None)
        other += 0.3 * ((config.group_size or 64) != (wanted.group_size or 64))
        return 9 * float(bits) + other, str(config)

    return min(range(len(configs)), key=lambda i: distance(configs[i]))


def table(replays: Mapping[str, Sequence[Replay]]) -> str:
    """A line for each model and number of runs, in points."""
    header = ["model", "runs", "points left", "MAE", "of sampling", "expected"]
    header += ["where 0.9 is kept"]
    header += ["a pick's promise", "below a fifth of the cache", "by sampling", "short of the best"]
    lines: list[list[object]] = [
        [
            name,
            one.runs,
            one.points,
            one.error,
            one.sampling,
            one.expected,
            one.error_usable,
            one.promise,
            one.promise_small,
            one.chance,
            one.short,
        ]
        for name, ones in replays.items()
        for one in ones
    ]
    return markdown_table(header, lines)


def all_replays() -> dict[str, list[Replay]]:
    """16 runs of the recall models and of SPREADS, and a fifth of the runs of each pretrained
    model by its text."""
    found = {name: [replay(recall_grid(name), 16)] for name in RECALL_MODELS}
    for hub_id in SHIPPED:
        measured = pretrained(hub_id)
        found[hub_id] = [replay(measured, round(FIFTH * len(measured.rows)))]
    for hub_id in SPREADS:
        measured, name = calibrated(hub_id), f"{hub_id}, text and tasks"
        found[name] = [replay(measured, 16)]
        found[f"{name}, attention not read"] = [replay(replace(measured, attention=None), 16)]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.evidence.replay")
    parser.add_argument("--write", action="store_true", help="into the docs")
    options = parser.parse_args(arguments)
    text = table(all_replays())
    print(text)
    if options.write:
        write_tables({"replay": text})


if __name__ == "__main__":
    main()
