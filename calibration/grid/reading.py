"""What a grid file says: retention of each run, overall and by kind, with its sampling error.

A line is a run: {"model", "config", "context", "seconds", "seed", "tasks": {variant: {"score",
"items"}}}, or an "error" in the place of tasks; a line without a configuration is the environment
that the lines behind it were measured in. `items` has one hexadecimal digit an item: the answer
parts that are right before the first that is wrong, in the order of score.py. Tasks that are no
variants of the grid any more are passed over.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...planner.accuracy.measured_configs import MeasuredRetention
from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ..fit.accuracy_rows import AccuracyRow, row_of
from ..tasks.scores import Score, paired
from .variants import VARIANTS

FULL = str(Configuration())


def encode_items(right: Sequence[int]) -> str:
    """Right parts of each item, one digit each."""
    return "".join(f"{parts:x}" for parts in right)


def decode_items(text: str) -> list[int]:
    return [int(digit, 16) for digit in text]


@dataclass(frozen=True)
class GridRun:
    """One configuration of a model at a context, on all its tasks."""

    model: str
    config: Configuration
    context: int
    kinds: Mapping[str, MeasuredRetention]
    """Retention by kind of task: the mean over its variants."""
    overall: MeasuredRetention
    """The mean over the kinds, as a plan's overall retention is."""


def read_runs(path: Path) -> list[GridRun]:
    """All runs but the unquantized model's, which each is paired with.

    Raises BadInput for a file without it.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in lines if "tasks" in row]
    whole = {(r["model"], r["context"]): r["tasks"] for r in rows if r["config"] == FULL}
    runs = []
    for row in rows:
        key = row["model"], row["context"]
        if key not in whole:
            raise BadInput(f"{path}: {key} was not run unquantized", "measure the grid again")
        if row["config"] != FULL:
            runs.append(_run(row, whole[key]))
    return runs


def _run(row: Mapping[str, Any], whole: Mapping[str, Any]) -> GridRun:
    by_kind: dict[str, list[MeasuredRetention]] = {}
    for name in sorted(row["tasks"].keys() & VARIANTS.keys()):
        first, second = (
            Score.of([float(right) for right in decode_items(items)])
            for items in (whole[name]["items"], row["tasks"][name]["items"])
        )
        pair = paired(first, second)
        assert pair.retention is not None  # a variant was chosen for its score
        error = max(pair.retention_stderr or 0.0, 1 / (len(first.per_item) + 2))
        by_kind.setdefault(VARIANTS[name].kind, []).append(MeasuredRetention(pair.retention, error))
    kinds = {kind: mean(kept) for kind, kept in sorted(by_kind.items())}
    config = Configuration.parse(row["config"])
    return GridRun(row["model"], config, row["context"], kinds, mean(list(kinds.values())))


def mean(kept: Sequence[MeasuredRetention]) -> MeasuredRetention:
    """The mean of independent retentions, and its error."""
    error = math.sqrt(sum(one.sd**2 for one in kept)) / len(kept)
    return MeasuredRetention(sum(one.retention for one in kept) / len(kept), error)


def to_rows(runs: Sequence[GridRun], prefix: str = "") -> list[AccuracyRow]:
    """Rows of the regression, one for each kind of a run."""
    return [
        row_of(run.config, prefix + run.model, kind, kind, run.context, kept)
        for run in runs
        for kind, kept in run.kinds.items()
    ]
