"""How well the fit predicts what it has not seen of the grid.

    python -m kvpareto.calibration.grid.evaluate [FILE]
    python -m kvpareto.calibration.grid.evaluate --write    # what README's tables quote

A fifth of the runs is left out in turn, in two ways: single grid points (a format may have been
run at another context), and formats at all their contexts, of all models. Each model's own noise
is fitted to its other runs alone, from the shipped fit as prior, and predicts the rest; intervals
are as wide as the runs left out of the fit's own data ask for.
"""

import argparse
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ...planner.accuracy import predict as accuracy
from ...planner.accuracy.formula import Floats
from ...planner.accuracy.model_features import Features
from ..fit.calibrated_noise import (
    FittedNoise,
    NoisePrior,
    NoiseRows,
    fit_calibrated_noise,
    prior_of,
)
from ..fit.leave_out import leave_out
from ..fit.mixed_effects import KnownModel
from .held_out import FILE, HIGH, Judged, held_out_of, write_held_out
from .reading import GridRun, read_runs, to_rows

FEATURES = Features(
    family=None,
    parameters_b=0.0076,
    qkv_bias=True,
    qk_norm=False,
    head_dim=64,
    layers=8,
    attention_fraction=1.0,
)
SHAPE = (256, 8, 2)
FOLDS = 5
WAYS: dict[str, tuple[str, Callable[[GridRun], Hashable]]] = {
    "point": ("grid points", lambda run: (run.config, run.context)),
    "format": ("formats at all contexts", lambda run: run.config),
}
"""Ways to leave out: in words, and what is left out together."""


def judge(
    runs: Sequence[GridRun],
    alike: Callable[[GridRun], Hashable],
    seed: int = 0,
    folds: Sequence[int] = range(FOLDS),
) -> list[Judged]:
    """Leave runs out by folds, those that are `alike` together; one result for each model, of the
    runs in `folds`."""
    keys = list(dict.fromkeys(alike(run) for run in runs))
    fold = dict(zip(keys, np.random.default_rng(seed).permutation(len(keys)) % FOLDS, strict=True))
    shipped = accuracy.published()
    prior = prior_of(shipped, shipped.models.unseen(FEATURES))
    results = []
    for name in sorted({run.model for run in runs}):
        model = KnownModel(name, FEATURES, (name,), SHAPE)
        own = [run for run in runs if run.model == name]
        judged: dict[int, tuple[float, float, float]] = {}
        for out in folds:
            kept = [run for run in own if fold[alike(run)] != out]
            left = [i for i, run in enumerate(own) if fold[alike(run)] == out]
            fitted = fit_calibrated_noise(to_rows(kept), model, prior)
            shift = _shift(kept, alike, model, prior)
            ends = [_overall([own[i] for i in left], model, fitted, s) for s in (0, shift, -shift)]
            judged |= dict(
                zip(left, zip(*(end.tolist() for end in ends), strict=True), strict=True)
            )
        columns = np.array([judged[i] for i in sorted(judged)]).T
        results.append(Judged(tuple(own[i] for i in sorted(judged)), *columns))
    return results


def _shift(
    runs: Sequence[GridRun],
    alike: Callable[[GridRun], Hashable],
    model: KnownModel,
    prior: NoisePrior,
) -> float:
    """Width of the intervals, from leaving out a third of these runs in turn."""
    labels = list(dict.fromkeys(alike(run) for run in runs))
    groups = [labels.index(alike(run)) for run in runs for _ in run.kinds]
    return leave_out(to_rows(runs), groups, model, prior, folds=3).shift


def _overall(runs: Sequence[GridRun], model: KnownModel, own: FittedNoise, shift: float) -> Floats:
    """Mean over each run's kinds."""
    rows = NoiseRows(to_rows(runs), model).predict(own.noise, shift)
    ends = np.cumsum([len(run.kinds) for run in runs])
    return np.array([part.mean() for part in np.split(rows, ends[:-1])])


def table(by_way: Mapping[str, Sequence[Judged]]) -> str:
    """The figures of each way as a table."""
    lines = [
        "| model | left out | runs | MAE above 0.9 | MAE | 90 % intervals hold |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for way, results in by_way.items():
        for judged in results:
            lines.append(
                f"| {judged.runs[0].model} | {WAYS[way][0]} | {len(judged.runs)} "
                f"| {100 * judged.error(HIGH):.2f} | {100 * judged.error():.2f} "
                f"| {100 * judged.coverage():.0f} % |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.grid.evaluate")
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--write", action="store_true", help="keep the predictions beside FILE")
    options = parser.parse_args(arguments)
    runs = read_runs(options.file)
    with threadpool_limits(1):
        by_way = {way: judge(runs, alike) for way, (_, alike) in WAYS.items()}
    print(table(by_way))
    if options.write:
        write_held_out(held_out_of(options.file), by_way)


if __name__ == "__main__":
    main()
