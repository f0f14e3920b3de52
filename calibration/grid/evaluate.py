"""How well the fit predicts what it has not seen of the grid.

    python -m kvpareto.calibration.grid.evaluate [FILE]

A fifth of the runs is left out in turn, in two ways: single grid points (a format may have been
run at another context), and formats at all their contexts, of all models. Each model's own noise
is fitted to its other runs alone, from the shipped fit as prior, and predicts the rest; intervals
are as wide as the runs left out of the fit's own data ask for.
"""

import argparse
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ...planner import accuracy
from ...planner.model_effects import Features
from ...planner.quantization_noise import Floats
from ..hierarchy import Model
from ..holdout import NORMAL_Z, TIE
from ..own_fit import Own, Prior, Rows, fit_own, leave_out, prior_of
from .reading import Run, read_runs, to_rows

FILE = Path(__file__).parents[2] / "profiles" / "calibrations" / "recall_grid.jsonl"
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
HIGH = 0.9


@dataclass(frozen=True)
class Judged:
    """Runs of one model with their left-out predictions: retention, low and high end [N]."""

    runs: tuple[Run, ...]
    predicted: Floats
    low: Floats
    high: Floats

    @property
    def measured(self) -> Floats:
        return np.minimum([run.overall.retention for run in self.runs], 1.0)

    def error(self, least: float = 0.0) -> float:
        """Mean error of the runs that keep at least this much."""
        chosen = self.measured >= least
        return float(np.abs(self.predicted - self.measured)[chosen].mean())

    def coverage(self) -> float:
        """Share of the runs inside their intervals, the score's sampling error in quadrature."""
        error = NORMAL_Z * np.array([run.overall.sd for run in self.runs])
        low = self.predicted - np.hypot(self.predicted - self.low, error)
        high = self.predicted + np.hypot(self.high - self.predicted, error)
        inside = (low <= self.measured + TIE) & (self.measured - TIE <= high)
        return float(inside.mean())


def judge(runs: Sequence[Run], alike: Callable[[Run], Hashable], seed: int = 0) -> list[Judged]:
    """Leave runs out by folds, those that are `alike` together; one result for each model."""
    keys = list(dict.fromkeys(alike(run) for run in runs))
    fold = dict(zip(keys, np.random.default_rng(seed).permutation(len(keys)) % FOLDS, strict=True))
    shipped = accuracy.published()
    prior = prior_of(shipped, shipped.models.unseen(FEATURES))
    found = []
    for name in sorted({run.model for run in runs}):
        model = Model(name, FEATURES, (name,), SHAPE)
        own = [run for run in runs if run.model == name]
        judged: dict[int, tuple[float, float, float]] = {}
        for out in range(FOLDS):
            kept = [run for run in own if fold[alike(run)] != out]
            left = [i for i, run in enumerate(own) if fold[alike(run)] == out]
            fitted = fit_own(to_rows(kept), model, prior)
            shift = _shift(kept, alike, model, prior)
            ends = [_overall([own[i] for i in left], model, fitted, s) for s in (0, shift, -shift)]
            judged |= dict(
                zip(left, zip(*(end.tolist() for end in ends), strict=True), strict=True)
            )
        columns = np.array([judged[i] for i in range(len(own))]).T
        found.append(Judged(tuple(own), *columns))
    return found


def _shift(
    runs: Sequence[Run], alike: Callable[[Run], Hashable], model: Model, prior: Prior
) -> float:
    """Width of the intervals, from leaving out a third of these runs in turn."""
    labels = list(dict.fromkeys(alike(run) for run in runs))
    groups = [labels.index(alike(run)) for run in runs for _ in run.kinds]
    return leave_out(to_rows(runs), groups, model, prior, folds=3).shift


def _overall(runs: Sequence[Run], model: Model, own: Own, shift: float) -> Floats:
    """Mean over each run's kinds."""
    rows = Rows(to_rows(runs), model).predict(own.noise, shift)
    ends = np.cumsum([len(run.kinds) for run in runs])
    return np.array([part.mean() for part in np.split(rows, ends[:-1])])


def table(runs: Sequence[Run]) -> str:
    """The figures of both ways as a table."""
    lines = [
        "| model | left out | runs | MAE above 0.9 | MAE | 90 % intervals hold |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    ways: list[tuple[str, Callable[[Run], Hashable]]] = [
        ("grid points", lambda run: (run.config, run.context)),
        ("formats at all contexts", lambda run: run.config),
    ]
    for name, alike in ways:
        for judged in judge(runs, alike):
            lines.append(
                f"| {judged.runs[0].model} | {name} | {len(judged.runs)} "
                f"| {100 * judged.error(HIGH):.2f} | {100 * judged.error():.2f} "
                f"| {100 * judged.coverage():.0f} % |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.grid.evaluate")
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    options = parser.parse_args(arguments)
    with threadpool_limits(1):
        print(table(read_runs(options.file)))


if __name__ == "__main__":
    main()
