"""What `evaluate` predicted for runs it had left out, kept beside the grid's rows.

Leaving out takes minutes; tables that show its predictions are made in seconds from this file. A
line is a run, with its retention as measured and, for each way of leaving out, the prediction and
both ends of its interval. Reading holds the file to the rows: it is of no use for others.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.interval import inside
from ...planner.errors import BadInput
from ..fit.accuracy_rows import write_table
from .reading import GridRun

FILE = Path(__file__).parents[2] / "profiles" / "calibrations" / "recall_grid.jsonl"
HIGH = 0.9
"""Retention of what a planner may recommend."""
TOLERANCE = 1e-4
"""Numbers are written to four decimals."""


@dataclass(frozen=True)
class Judged:
    """Runs of one model with their left-out predictions: retention, low and high end [N]."""

    runs: tuple[GridRun, ...]
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
        sd = np.array([run.overall.sd for run in self.runs])
        return float(inside(self.measured, self.predicted, self.low, self.high, sd).mean())


def held_out_of(file: Path) -> Path:
    """Where the predictions for a grid file are kept."""
    return file.with_name(f"{file.stem}_held_out.csv")


def write_held_out(path: Path, by_way: Mapping[str, Sequence[Judged]]) -> None:
    """`by_way` is the result of each way of leaving out by its name, models in the same order."""
    header = ["model", "config", "context", "retention"]
    for way in by_way:
        header += [way, f"{way}_low", f"{way}_high"]
    lines: list[list[str]] = []
    for ways in zip(*by_way.values(), strict=True):
        runs, ends = ways[0].runs, [e for way in ways for e in (way.predicted, way.low, way.high)]
        for run, *values in zip(runs, ways[0].measured, *ends, strict=True):
            named = [run.model, str(run.config), str(run.context)]
            lines.append([*named, *(f"{value:.4f}" for value in values)])
    write_table(path, header, lines)


def read_held_out(path: Path, runs: Sequence[GridRun], way: str) -> list[Judged]:
    """The results of one way of leaving out, a model each. Raises BadInput where the file is not
    about these runs."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = {(x["model"], x["config"], int(x["context"])): x for x in csv.DictReader(file)}
    keys = [(run.model, str(run.config), run.context) for run in runs]
    hint = "python -m kvpareto.calibration.grid.evaluate --write"
    if strange := set(keys) ^ lines.keys():
        raise BadInput(f"{path.name} and the grid do not agree about {min(strange)}", hint)
    results = []
    for model in sorted({run.model for run in runs}):
        own = [(run, lines[k]) for run, k in zip(runs, keys, strict=True) if run.model == model]
        ends = [[float(line[way + end]) for _, line in own] for end in ("", "_low", "_high")]
        judged = Judged(tuple(run for run, _ in own), *map(np.array, ends))
        for run, measured, (_, line) in zip(judged.runs, judged.measured, own, strict=True):
            if abs(measured - float(line["retention"])) > TOLERANCE:
                raise BadInput(f"{path.name} is out of date: {run.config} kept {measured}", hint)
        results.append(judged)
    return results
