"""Tables of README and docs/recall_model.md: what quantizing costs, by which a format is chosen.

Everything is computed from shipped rows: the recall models' grid, with what was predicted for its
formats where none of their runs was in the fit, and the published tables, with what was predicted
for a model where none of its rows was. `docs/write_generated.py` puts the results into the pages
and, with `--check`, fails where a page says something else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from ...planner.accuracy.formula import Floats
from ...planner.formats.configuration import Configuration, Granularity
from ...planner.formats.kv_format import KVFormat
from ..fit.accuracy_rows import AccuracyRow, read_rows, row_of
from ..fit.cross_validation import observed, read_predicted
from ..fit.published import FOLDER
from ..grid.held_out import FILE, HIGH, Judged, held_out_of, read_held_out
from ..grid.reading import FULL, GridRun, read_runs
from ..grid.variants import ITEMS, WANTED
from .marked_tables import markdown_table

CONTEXTS = (1024, 4096, 8192)
ANSWERED = ("reasoning", "long_reasoning", "retrieval")
"""Kinds of published rows in which answers are generated, so that the cache is read."""
HEAD_DIM, TOKENS = 128, 8192
"""Of the cache whose size is shown."""

PLAIN, SMOOTHED, ROTATED, BOTH = (False, False), (True, False), (False, True), (True, True)
TURNS = (PLAIN, SMOOTHED, ROTATED, BOTH)
"""Keys smoothed, keys rotated."""
UP_FROM_4 = (4, 6, 8, 16)


KEYS_CONTEXT = 1024
KEYS_MODELS = ("recall", "recall-outliers")
KEYS_KINDS = {"retrieval": "needles", "reasoning": "variables, arithmetic"}
CELLS = {
    "w16a16-k4v8-pt+res128+pc256": "4 bits, one scale a tensor",
    "w4a16-k4v8-pb64+pc256": "4 bits, tiles of 64 tokens",
    "w16a16-k4v16+smooth+pc256": "4 bits, per token, smoothed",
    "w16a16-k4v16+rot+res128": "rotated",
    "w16a16-k4v8-pb64-g32+smooth+rot+res128": "tiles, smoothed and rotated",
    "w16a16-k4v16-kc128": "4 bits, per channel",
    "w16a16-k2v8+pc256": "2 bits, per token",
    "w16a16-k2v8-kc+res128": "2 bits, per channel",
}
"""Of docs/recall_model.md's table of keys: cells whose values lose nothing, so that keys are all
that differs."""


@dataclass(frozen=True)
class TableLine:
    """Formats that are shown together. A field of None is any."""

    words: str
    size: str
    """The smallest of them, groups of 64, whose cache is measured."""
    keys: tuple[float, ...]
    values: tuple[float, ...]
    turns: tuple[tuple[bool, bool], ...] | None
    """Scales per token with keys turned in these ways; () is per channel."""
    window: bool | None = None

    def holds(self, row: AccuracyRow) -> bool:
        if row.k_bits not in self.keys or row.v_bits not in self.values:
            return False
        if min(row.k_bits, row.v_bits) == 16 or self.window not in (None, row.residual > 0):
            return False
        if self.turns is None:
            return True
        if row.granularity == Granularity.PER_CHANNEL:
            return not self.turns or self.turns == TURNS
        values_alone = row.rotate_v and not row.rotate_k
        by_token = row.granularity == Granularity.PER_TOKEN and not values_alone
        return by_token and (row.smoothing, row.rotate_k) in self.turns

    @property
    def cache(self) -> str:
        """Its bytes, as a share of 16-bit keys and values."""
        formats = (Configuration.parse(text) for text in (f"w16a16-{self.size}", FULL))
        small, full = (
            KVFormat.of(config, 0).nbytes(1, 1, HEAD_DIM, HEAD_DIM, TOKENS) for config in formats
        )
        return f"{100 * small / full:.0f} %"


LINES = (
    TableLine("K8 or K16, V4 or more", "k8v4-g64", (8, 16), UP_FROM_4, None),
    TableLine("K8 or K16, V2, no window", "k8v2-g64", (8, 16), (2,), TURNS, False),
    TableLine("the same, a window", "k8v2-g64+res128", (8, 16), (2,), TURNS, True),
    TableLine("K4, V4 or more, per token", "k4v4-g64", (4,), UP_FROM_4, (PLAIN,)),
    TableLine("the same, smoothed", "k4v4-g64+smooth", (4,), UP_FROM_4, (SMOOTHED,)),
    TableLine("the same, rotated", "k4v4-g64+rot", (4,), UP_FROM_4, (ROTATED,)),
    TableLine("the same, smoothed and rotated", "k4v4-g64+smooth+rot", (4,), UP_FROM_4, (BOTH,)),
    TableLine("K4, V4 or more, per channel", "k4v4-kc64-g64", (4,), UP_FROM_4, ()),
    TableLine(
        "K4, V2, per token, smoothed or rotated or both", "k4v2-g64+rot", (4,), (2,), TURNS[1:]
    ),
    TableLine("K4, V2, per channel", "k4v2-kc64-g64", (4,), (2,), ()),
    TableLine("K2, V4 or more, per token", "k2v4-g64", (2,), UP_FROM_4, (PLAIN,)),
    TableLine("the same, smoothed or rotated or both", "k2v4-g64+rot", (2,), UP_FROM_4, TURNS[1:]),
    TableLine("K2, V4 or more, per channel", "k2v4-kc64-g64", (2,), UP_FROM_4, ()),
    TableLine("K2, V2, per channel", "k2v2-kc64-g64", (2,), (2,), ()),
)


@dataclass(frozen=True)
class PredictedRows:
    """Rows and what was predicted for them, left out: retention at most 1, [N]."""

    rows: tuple[AccuracyRow, ...]
    predicted: Floats

    @property
    def measured(self) -> Floats:
        return observed(self.rows)

    def of(self, holds: Callable[[AccuracyRow], bool]) -> "PredictedRows":
        chosen = [i for i, row in enumerate(self.rows) if holds(row)]
        return PredictedRows(tuple(self.rows[i] for i in chosen), self.predicted[chosen])

    def prediction(self) -> str:
        """Mean prediction, and mean error of a single row."""
        off = np.abs(self.predicted - self.measured)
        return f"{_points(self.predicted)} ({_points(off)})" if self.rows else "–"

    def at(self, context: int) -> "PredictedRows":
        return self.of(lambda row: row.context == context)

    def by_context(self) -> str:
        parts = [self.at(context) for context in CONTEXTS]
        return " / ".join(_points(part.measured) if part.rows else "–" for part in parts)


@dataclass(frozen=True)
class Shipped:
    """What README's figures are made of: a grid's results by ways of leaving out, rows of the
    published tables, and how the shipped fit did on models that were left out."""

    points: tuple[Judged, ...]
    formats: tuple[Judged, ...]
    published: PredictedRows
    unseen: Mapping[str, Any]
    sources: Mapping[str, Any]

    @classmethod
    def read(cls, grid: Path = FILE, folder: Path = FOLDER) -> "Shipped":
        runs, rows = read_runs(grid), read_rows(folder / "accuracy.csv")
        points, formats = (
            tuple(read_held_out(held_out_of(grid), runs, way)) for way in ("point", "format")
        )
        published = PredictedRows(tuple(rows), read_predicted(folder / "held_out.csv", rows))
        payload = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
        ways = (payload["held_out"][f"leave_one_{way}_out"] for way in ("model", "source"))
        return cls(points, formats, published, *ways)

    @property
    def grids(self) -> dict[str, PredictedRows]:
        """Each model's grid, with predictions for formats that were never run."""
        return {
            judged.runs[0].model: PredictedRows(
                tuple(
                    row_of(run.config, run.model, "grid", "reasoning", run.context, run.overall)
                    for run in judged.runs
                ),
                judged.predicted,
            )
            for judged in self.formats
        }


def formats_table(shipped: Shipped) -> str:
    """README's table, and what its figures are."""
    tables = shipped.published.of(_in_16_bits)
    contexts = " / ".join(f"{context // 1024}k" for context in CONTEXTS)
    header = ["keys and values", "cache", "runs"]
    for model in shipped.grids:
        header += [f"{model}, {contexts}", "predicted (off)"]
    header += ["published: rows, models", "mean (lowest)", "predicted (off)"]
    body, sampled = [], []
    for line in LINES:
        grids = [grid.of(line.holds) for grid in shipped.grids.values()]
        published = tables.of(line.holds)
        if not published.rows and not any(grid.rows for grid in grids):
            continue
        cells = [line.words, line.cache, sum(len(grid.rows) for grid in grids)]
        for grid in grids:
            cells += [grid.by_context(), grid.prediction()]
            sampled += [row.sd for row in grid.rows]
        if published.rows:
            models = {row.model for row in published.rows}
            lowest = 100 * published.measured.min()
            cells += [f"{len(published.rows)}, {len(models)}"]
            cells += [f"{_points(published.measured)} ({lowest:.1f})"]
        else:
            cells += ["–", "–"]
        body.append([*cells, published.prediction()])
    runs = sum(len(grid.rows) for grid in shipped.grids.values())
    error = [row.sd for row in tables.rows]
    says = f"""
        Retention, % of the unquantized score; cache, bytes of the line's smallest format beside
        those of 16 bits (heads of {HEAD_DIM}, groups of 64). Recall models: {runs:,} runs of
        [the grid](docs/frontier.md) on an H100 and an H200 with 16- and 4-bit weights,
        {WANTED * ITEMS} items each,
        sampling error of a run at most {100 * max(sampled):.1f} points; a window keeps the last 128
        tokens in 16 bits. [Published](profiles/published/README.md): tasks with generated answers,
        16-bit weights, no layer protected; sampling error of a row
        {100 * float(np.median(error)):.1f} points in the median. Predicted from fits without the
        run's own format at any context (recall models, a fifth left out at a time) or without the
        row's model and its relatives (published); off: mean error of a single run or row.
    """
    return f"{markdown_table(header, body)}\n\n{fill(' '.join(says.split()), 100)}"


def accuracy_lines(shipped: Shipped) -> dict[str, str]:
    """Lines of README's table of errors that these rows decide, by their first cell."""
    unseen = shipped.unseen
    pair, linear = (100 * unseen["baseline_mae"][name] for name in ("bit pair", "linear"))
    runs = sum(len(judged.runs) for judged in shipped.formats)
    tables, rows = shipped.sources, shipped.published
    of_cache = [row.quantizes_cache for row in rows.rows]
    scores = np.array([row.retention for row in rows.rows])
    model_out = 100 * float(np.abs(rows.predicted - scores)[of_cache].mean())
    lines = [
        (
            "accuracy of a model nobody measured",
            f"{unseen['rows']} published rows of caches and of weights, its family left out",
            f"mean error {100 * unseen['mae']:.1f} points of retention (by bit pair {pair:.1f}, "
            f"linear {linear:.1f}); the 90 % interval holds {100 * unseen['coverage']:.0f} % "
            "([accuracy](docs/accuracy.md))",
        ),
        (
            "accuracy of caches of a table nobody has seen",
            f"{tables['rows']:,} published rows of quantized caches, each of {tables['sources']} "
            "papers and repositories left out whole",
            f"mean error {100 * tables['mae']:.1f} points (of a model left out, with its relatives,"
            f" {model_out:.1f}); 90 % intervals hold {100 * tables['coverage']:.0f} %, below nine "
            f"tenths {100 * tables['coverage_below_0.9']:.0f} % "
            "([sources left out](docs/accuracy_evidence.md#sources-left-out))",
        ),
        (
            "accuracy of formats left out, once a model is measured",
            f"{runs:,} runs of {' and '.join(shipped.grids)} on an H100 and an H200",
            f"grid points: mean error {_judged(shipped.points)}; formats never run at any context: "
            f"{_judged(shipped.formats)} ([frontier](docs/frontier.md))",
        ),
    ]
    return {cells[0]: f"| {' | '.join(cells)} |" for cells in lines}


def _judged(results: Sequence[Judged]) -> str:
    """Errors and coverage of each model in words."""
    all_runs = " and ".join(f"{100 * one.error():.2f}" for one in results)
    high = " and ".join(f"{100 * one.error(HIGH):.2f}" for one in results)
    held = " and ".join(f"{100 * one.coverage():.0f}" for one in results)
    return f"{all_runs} points ({high} where nine tenths are kept), 90 % intervals hold {held} %"


def _in_16_bits(row: AccuracyRow) -> bool:
    """A published row about the cache alone."""
    return row.weight_bits == 16 and not row.protected_layers and row.kind in ANSWERED


def _points(values: Floats) -> str:
    return f"{100 * float(np.mean(values)):.1f}"


def keys_table(runs: Sequence[GridRun]) -> str:
    """What formats make of keys with outliers and without: a line for each of CELLS."""
    by_cell = {(run.model, str(run.config)): run for run in runs if run.context == KEYS_CONTEXT}
    header = ["keys", "configuration"]
    header += [f"{model}: {task}" for model in KEYS_MODELS for task in KEYS_KINDS.values()]
    body: list[list[object]] = []
    worst = 0.0
    for config, words in CELLS.items():
        kept = [by_cell[model, config].kinds[kind] for model in KEYS_MODELS for kind in KEYS_KINDS]
        worst = max(worst, *(one.sd for one in kept))
        body.append([words, f"`{config}`", *(min(one.retention, 1.0) for one in kept)])
    return (
        f"{markdown_table(header, body)}\n\nRetention at {KEYS_CONTEXT:,} tokens, {ITEMS} items a "
        f"task, sampling error at most {worst:.3f}."
    )
