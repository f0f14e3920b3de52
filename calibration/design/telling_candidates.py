"""The candidates of a calibration as points of a TellingDesign, and its records as their rows.

A run of a candidate leaves a row for each kind of task at each context, as the runs before it did.
Thousands of candidates differ by less than a fit can tell, so POOL of them stand for all, with
those that were run.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from ...planner.accuracy.measured_configs import MeasuredRetention
from ...planner.accuracy.model_features import shape_of
from ...planner.formats.configuration import Configuration
from ...planner.models.spec import ModelSpec
from ..fit.accuracy_rows import AccuracyRow, row_of
from ..fit.calibrated_noise import as_fitted, prior_of
from ..fit.mixed_effects import KnownModel
from ..fit.profile import starting_fit, to_row
from ..measure.layer_sensitivity import Sensitivity
from ..records.record_file import Record
from .telling_run import Points, TellingDesign

KEY = "calibrated"
POOL = 500
"""Candidates that are looked at."""
UNKNOWN = MeasuredRetention(0.5, 0.0)
"""In the place of what a run has not told yet."""
Place = tuple[str, int]
"""A kind of task and a context."""


class CandidateDesign:
    """Chooses among `configs` whose memory is known, by a calibration's records."""

    def __init__(
        self,
        spec: ModelSpec,
        configs: Sequence[Configuration],
        memory: Sequence[int],
        sensitivity: Sensitivity | None = None,
    ) -> None:
        """`memory` [C] is in bytes."""
        shipped = starting_fit(spec)
        self._effects = shipped.models.of(spec)
        features = self._effects.features
        if sensitivity is not None:
            features = replace(
                features, outliers=sensitivity.outliers, attention=sensitivity.attention
            )
        self._shape, self._shipped, self._features = shape_of(spec), shipped, features
        self._configs, self._memory = configs, np.array(memory, dtype=float)
        self._index = {config.with_chunk(None): i for i, config in enumerate(configs)}
        rng = np.random.default_rng(0)
        self._pool = rng.choice(len(configs), min(POOL, len(configs)), replace=False).tolist()
        self._places: tuple[Place, ...] = ()
        self._design: TellingDesign | None = None

    def next(
        self, records: Sequence[Record], tried: Collection[int], last: bool, otherwise: int | None
    ) -> int | None:
        """The candidate to run after `tried`, `last` of all or not; `otherwise` where no row says
        anything yet."""
        measured = _measured(records)
        if not measured:
            return otherwise
        places = _places(measured)
        design = self._design_at(places, tried)
        number = {candidate: i for i, candidate in enumerate(self._pool)}
        kept: list[list[float]] = [[] for _ in range(len(self._pool) * len(places))]
        for config, row in measured:
            candidate = number.get(self._index.get(config, -1))
            if candidate is not None:
                place = places.index((row.kind, row.context))
                kept[candidate * len(places) + place].append(min(row.retention, 1.0))
        seen = np.array([np.mean(values) if values else np.nan for values in kept])
        ran = {number[candidate] for candidate in tried}
        chosen = design.next([row for _, row in measured], ran, seen, last)
        return None if chosen is None else self._pool[chosen]

    def expected(self, records: Sequence[Record], tried: Collection[int]) -> float | None:
        """Mean error that the records' rows leave over the candidates that were not tried, as the
        fit of the model's own noise expects it; None without a row."""
        measured = _measured(records)
        if not measured:
            return None
        design = self._design_at(_places(measured), tried)
        number = {candidate: i for i, candidate in enumerate(self._pool)}
        return design.expected([row for _, row in measured], {number[one] for one in tried})

    def _design_at(self, places: tuple[Place, ...], tried: Collection[int]) -> TellingDesign:
        """The design whose runs leave rows at `places`, with all of `tried` in the pool."""
        missing = sorted(set(tried) - set(self._pool))
        if self._design is None or missing or places != self._places:
            self._pool += missing
            rows: list[AccuracyRow] = [
                row_of(self._configs[candidate], KEY, kind, kind, context, UNKNOWN)
                for candidate in self._pool
                for kind, context in places
            ]
            owner = np.repeat(np.arange(len(self._pool)), len(places))
            points = Points(rows, owner, self._memory[self._pool])
            features = as_fitted(self._features, [kind for kind, _ in places])
            prior = prior_of(self._shipped, replace(self._effects, features=features))
            model = KnownModel(KEY, features, (), self._shape)
            self._design = TellingDesign(points, model, prior)
            self._places = places
        return self._design


Measured = Sequence[tuple[Configuration, AccuracyRow]]
"""Rows with the configuration that was run, without its chunk."""


def _measured(records: Sequence[Record]) -> Measured:
    """What the fit learns from: all but formats with maps, of which it knows nothing."""
    return [
        (config.with_chunk(None), row)
        for record in records
        if not (config := Configuration.parse(record.config)).affine
        and (row := to_row(record, KEY)) is not None
    ]


def _places(measured: Measured) -> tuple[Place, ...]:
    return tuple(sorted({(row.kind, row.context) for _, row in measured}))
