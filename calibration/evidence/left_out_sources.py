"""What a table that nobody has seen gets: each source left out whole, and predicted as planned.

A source is a paper, a repository or a publisher with all of its tables; its models may have rows in
others. `refit_published` leaves them out and writes the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.interval import inside
from ..fit.accuracy_rows import AccuracyRow
from ..fit.cross_validation import observed
from ..fit.interval_widths import BASES, FALLEN, shares
from ..fit.published_sources import origin
from ..fit.regression import FLOOR
from .marked_tables import markdown_table

HELD, FALLEN_HELD = 0.87, 0.8
"""Least shares of all rows, and of those that lose a tenth or more, that intervals are to hold."""
TEXT = "perplexity"
LONG = 16_000
"""Tokens of the rows whose context is shown apart."""

LEFT_OUT = "cache, a model left out"


@dataclass(frozen=True, eq=False)
class ForeseenRows:
    """Rows beside what was foreseen of them by a fit without them, [N] each."""

    rows: tuple[AccuracyRow, ...]
    low: Floats
    predicted: Floats
    high: Floats

    @property
    def scores(self) -> Floats:
        return np.array([row.retention for row in self.rows])

    @property
    def errors(self) -> Floats:
        return np.abs(self.predicted - self.scores)

    @property
    def held(self) -> Floats:
        """1 where the interval holds the score, by the rule of all hold-outs; else 0."""
        sd = np.hypot([row.sd for row in self.rows], FLOOR)
        is_held = inside(observed(self.rows), self.predicted, self.low, self.high, sd)
        return np.asarray(is_held, dtype=float)

    @property
    def fallen(self) -> NDArray[np.bool_]:
        """Whether each row lost a tenth or more."""
        return self.scores < FALLEN

    @property
    def whole_weights(self) -> NDArray[np.bool_]:
        """Whether each row's weights are in 16 bits."""
        return np.array([row.weight_bits >= 16 for row in self.rows])

    @property
    def is_text(self) -> NDArray[np.bool_]:
        return np.array([row.kind == TEXT for row in self.rows])

    @property
    def reaches(self) -> bool:
        """Whether enough of all rows and of the fallen ones are held."""
        fallen = self.held[self.fallen]
        return bool(self.held.mean() >= HELD and (not len(fallen) or fallen.mean() >= FALLEN_HELD))


def source_summary(found: ForeseenRows) -> dict[str, Any]:
    """Of quantized caches: errors and coverage, as JSON values."""
    cache = np.array([row.quantizes_cache for row in found.rows])
    lost = cache & found.fallen
    rows, alike = _shares(found, cache)
    below, below_alike = _shares(found, lost)
    values = {
        "mae": found.errors[cache].mean(),
        "coverage": rows,
        "coverage_each_source_alike": alike,
        "coverage_below_0.9": below,
        "coverage_below_0.9_each_source_alike": below_alike,
        "mean_width": (found.high - found.low)[cache].mean(),
    }
    counts = {"rows": int(cache.sum()), "sources": _sources(found, cache)}
    return counts | {name: round(float(value), 4) for name, value in values.items()}


def sources_table(found: ForeseenRows, bases: Sequence[str], strangers: ForeseenRows) -> str:
    """Markdown: errors, coverage and width of caches, by what predictions rest on, by bits and of
    long contexts; of weights alone; and of caches of `strangers`, each model left out and its
    tables known."""
    cache = np.array([row.quantizes_cache for row in found.rows])
    basis = np.array(bases)
    fewest = np.array([min(row.k_bits, row.v_bits) for row in found.rows])
    parts = {
        "cache": cache,
        **{f"cache, {name}": cache & (basis == name) for name in BASES},
        "2 bits": fewest == 2,
        "3 bits": (fewest > 2) & (fewest <= 3),
        "4 bits": (fewest > 3) & (fewest <= 4),
        "5 to 8 bits": (fewest > 4) & (fewest <= 8),
        f"{LONG:,} tokens and more": cache & np.array([r.context >= LONG for r in found.rows]),
        "weights alone": ~cache,
        LEFT_OUT: cache,
    }
    header = ["rows", "number", "sources", "MAE", "mean width", "coverage", "each source alike"]
    header += ["below 0.9", "coverage", "each source alike"]
    lines: list[list[object]] = []
    for name, part in parts.items():
        if not part.any():
            continue
        rows = strangers if name == LEFT_OUT else found
        width, lost = rows.high - rows.low, part & rows.fallen
        below: tuple[object, object] = _shares(rows, lost) if lost.any() else ("–", "–")
        counts = int(part.sum()), _sources(rows, part)
        means = float(rows.errors[part].mean()), float(width[part].mean())
        lines.append([name, *counts, *means, *_shares(rows, part), int(lost.sum()), *below])
    return markdown_table(header, lines)


def _shares(found: ForeseenRows, part: NDArray[np.bool_]) -> tuple[float, float]:
    rows = [found.rows[i] for i in np.flatnonzero(part)]
    return shares(rows, (found.held[part] > 0).tolist())


def _sources(found: ForeseenRows, part: NDArray[np.bool_]) -> int:
    return len({origin(found.rows[i].source) for i in np.flatnonzero(part)})
