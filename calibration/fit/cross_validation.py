"""How good is a prediction for a model that the fit has never seen?

Models are left out one at a time, together with all others of the same family and shape (a
fine-tune must not vouch for its base), everything is fitted again, and the planner's own
arithmetic predicts the left-out rows as it would for a model without rows. The same residuals
set the width of the interval (interval_widths.py).
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.interval import NORMAL_Z, inside
from ...planner.accuracy.model_sensitivity import ModelSensitivity
from ...planner.accuracy.named_noise import checkpoint_bits
from ...planner.accuracy.predictor import Predictor, above_floor
from ...planner.accuracy.retention import OutlierLayers
from ...planner.errors import BadInput
from .accuracy_rows import AccuracyRow, write_table
from .coefficients import to_payload
from .mixed_effects import KnownModel
from .regression import FLOOR, fit_rows, formats_and_shares

Z_GRID = np.concatenate([np.linspace(0.0, 4.0, 81), np.linspace(4.5, 8.0, 8)])
"""Its last is the widest interval that is ever given: e^(8 x 0.5) = 55 times the noise either way,
at the spread of a model with rows of its own."""
FOLDS = 8
"""Parts of a model's own configurations, each left out once."""


@dataclass(frozen=True)
class Misfit:
    """What fits leave unexplained on one kind of task beside a model's own spread, as standard
    deviations."""

    cache: float = 0.0
    """Log noise of a quantized cache."""
    weights: float = 0.0
    """Retention under 4-bit weights."""


Misfits = Mapping[str, Misfit]
"""By kind of task."""


@dataclass(frozen=True)
class HeldOut:
    """Left-out predictions, one for each row, in the rows' order."""

    rows: tuple[AccuracyRow, ...]
    predicted: Floats
    named: Floats
    """Predicted as the task by name, its chance and baseline known."""
    ends: Floats
    """Retention at every z of Z_GRID towards the pessimistic and the optimistic side: [2, Z, N]."""

    def needed_z(self, *, strict: bool = False) -> Floats:
        """Smallest z whose interval holds each row's score; inf where none does.

        A score's own error is its sampling and what harnesses differ by; `strict` leaves it out.
        """
        sd = np.hypot([r.sd for r in self.rows], FLOOR) * (not strict)
        held = inside(observed(self.rows), self.predicted, self.ends[0], self.ends[1], sd)
        first = np.argmax(held, axis=0)
        return np.where(held.any(axis=0), Z_GRID[first], np.inf)

    def covered(self, z: float, *, strict: bool = False) -> Floats:
        """1 where a row's score is inside the interval of `z`, else 0."""
        is_covered: Floats = (self.needed_z(strict=strict) <= z + 1e-9).astype(float)
        return is_covered


class Collector:
    """Gathers the fits of left-out rows as the folds bring them, and predicts the rows by them."""

    def __init__(self, rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel]) -> None:
        self.rows, self.models = rows, models
        self._parts: list[tuple[tuple[int, ...], Predictor, ModelSensitivity]] = []

    def add(self, own: Sequence[int], predictor: Predictor, sensitivity: ModelSensitivity) -> None:
        """Rows of one model by their numbers, and by what they are to be predicted."""
        self._parts.append((tuple(own), predictor, sensitivity))

    def held_out(self, misfits: Misfits | None = None) -> HeldOut:
        """All that were added, with intervals that allow for these misfits."""
        by_row: dict[int, tuple[float, float, Floats]] = {}
        for own, predictor, sensitivity in self._parts:
            subset, fit = [self.rows[i] for i in own], with_misfits(predictor, misfits or {})
            middle = predict_rows(fit, sensitivity, subset, self.models, 0.0)
            named = predict_rows(fit, sensitivity, subset, self.models, 0.0, named=True)
            low = [predict_rows(fit, sensitivity, subset, self.models, z) for z in Z_GRID]
            high = [predict_rows(fit, sensitivity, subset, self.models, -z) for z in Z_GRID]
            ends = np.array([low, high])
            for j, i in enumerate(own):
                by_row[i] = (float(middle[j]), float(named[j]), ends[:, :, j])
        order = sorted(by_row)
        return HeldOut(
            rows=tuple(self.rows[i] for i in order),
            predicted=np.array([by_row[i][0] for i in order]),
            named=np.array([by_row[i][1] for i in order]),
            ends=np.stack([by_row[i][2] for i in order], axis=2),
        )

    def foreseen(self, z: float | None, misfits: Misfits, between_sources: float = 0.0) -> Floats:
        """Low, predicted and high [3, N] of all rows, at intervals of `z` (None: of each
        prediction's own); NaN for rows that were not added."""
        found = np.full((3, len(self.rows)), np.nan)
        for own, predictor, sensitivity in self._parts:
            rows = [self.rows[i] for i in own]
            fit = with_misfits(predictor, misfits, between_sources)
            half = sensitivity.z if z is None else z
            found[:, own] = [
                predict_rows(fit, sensitivity, rows, self.models, end) for end in (half, 0.0, -half)
            ]
        return found

    def covered(
        self, z: float | None, misfits: Misfits, between_sources: float = 0.0
    ) -> dict[int, bool]:
        """Of all that were added, whether the interval of `z` holds each row's score."""
        low, middle, high = self.foreseen(z, misfits, between_sources)
        sd = np.hypot([r.sd for r in self.rows], FLOOR)
        held = inside(observed(self.rows), middle, low, high, sd)
        return {int(i): bool(held[i]) for i in np.flatnonzero(~np.isnan(middle))}


def with_misfits(predictor: Predictor, misfits: Misfits, between_sources: float = 0.0) -> Predictor:
    """The same fit with other misfits of the kinds, 0 for those that are not named, and another
    between sources."""
    known = {kind: misfits.get(kind, Misfit()) for kind in predictor.payload["kind_shapes"]}
    shapes = {
        kind: {**shape, "misfit": known[kind].cache, "weight_misfit": known[kind].weights}
        for kind, shape in predictor.payload["kind_shapes"].items()
    }
    spread = {**predictor.payload["spread"], "source": between_sources}
    return Predictor({**predictor.payload, "kind_shapes": shapes, "spread": spread})


def misfits_of(predictor: Predictor) -> tuple[Misfits, float]:
    """The misfits that a fit has: of kinds, and between sources."""
    shapes = predictor.payload["kind_shapes"]
    of_kinds = {
        kind: Misfit(shape["misfit"], shape.get("weight_misfit", 0.0))
        for kind, shape in shapes.items()
    }
    return of_kinds, float(predictor.payload["spread"].get("source", 0.0))


def observed(rows: Sequence[AccuracyRow]) -> Floats:
    """Scores as an interval can hold them: a chance gain is no more than no loss."""
    return np.minimum([r.retention for r in rows], 1.0)


def groups(
    rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> dict[tuple[object, ...], list[int]]:
    """Row numbers of what is left out together: one family and shape at a time."""
    members: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(rows):
        model = models[row.model]
        members.setdefault((model.features.family, *model.shape), []).append(i)
    return members


def hold_out_models(
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    folder: Path,
    start: Mapping[str, float],
) -> Collector:
    """Predict every row from a fit without its model: what an unseen model gets."""
    collected = Collector(rows, models)
    for out in groups(rows, models).values():
        predictor = without(out, rows, models, folder, start)
        for key in dict.fromkeys(rows[i].model for i in out):
            # Nobody knows the outlier layers of a model that was never measured.
            features = replace(models[key].features, outliers=OutlierLayers())
            own = [i for i in out if rows[i].model == key]
            collected.add(own, predictor, predictor.models.unseen(features))
    return collected


def hold_out_configurations(
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    folder: Path,
    start: Mapping[str, float],
) -> Collector:
    """Predict rows from a fit without their configuration on that model, but with its others:
    what a known model gets. Models with one configuration are not in the result."""
    number: dict[tuple[object, ...], int] = {}
    of_model = Counter(key[0] for key in {_configuration(r) for r in rows})
    for row in rows:
        if of_model[row.model] > 1:
            number.setdefault(_configuration(row), len(number))
    collected = Collector(rows, models)
    for fold in range(FOLDS):
        out = [i for i, r in enumerate(rows) if number.get(_configuration(r), -1) % FOLDS == fold]
        out = [i for i in out if _configuration(rows[i]) in number]
        predictor = without(out, rows, models, folder, start)
        for key in dict.fromkeys(rows[i].model for i in out):
            if key in predictor.payload["models"]:
                own = [i for i in out if rows[i].model == key]
                collected.add(own, predictor, predictor.models.known(key, models[key].features))
    return collected


def _configuration(row: AccuracyRow) -> tuple[object, ...]:
    same = ("weight_bits", "k_bits", "v_bits", "granularity", "group_size", "rotate_k", "rotate_v")
    return (row.model, *(getattr(row, name) for name in same))


def without(
    out: Sequence[int],
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    folder: Path,
    start: Mapping[str, float],
    z: Mapping[str, float] | None = None,
) -> Predictor:
    """A fit of all rows but those numbered `out`; without `z`, intervals are those of a normal
    variable."""
    left = set(out)
    kept = [r for i, r in enumerate(rows) if i not in left]
    z = z or {"unseen": NORMAL_Z, "known": NORMAL_Z}
    return Predictor(to_payload(fit_rows(kept, models, start), kept, models, folder, z))


def predict_rows(
    predictor: Predictor,
    sensitivity: ModelSensitivity,
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    z: float,
    *,
    named: bool = False,
) -> Floats:
    """The planner's arithmetic on rows of one model: by their kinds, as a plan shows it, or as
    tasks that are `named`, whose chance and baseline are known."""
    owners = [replace(models[r.model], features=sensitivity.features) for r in rows]
    formats, shares = formats_and_shares(rows, owners)
    bits = np.array([r.protected_bits for r in rows])
    scored = [r.scored if named else None for r in rows]
    kinds = tuple(dict.fromkeys(r.kind for r in rows))
    ends = (z, 0.0) if z else (z,)
    cache, weights = predictor.retention(
        sensitivity,
        formats,
        formats.with_bits(bits, bits),
        shares,
        np.array([float(r.context) for r in rows]),
        np.array([planned_weight_bits(r) for r in rows]),
        kinds,
        ends,
        np.array([predictor.task_offset(r.kind, s) for r, s in zip(rows, scored, strict=True)]),
    )
    place = np.array([kinds.index(r.kind) for r in rows]), np.arange(len(rows))
    floors = [predictor.floor(sensitivity, r.kind, s) for r, s in zip(rows, scored, strict=True)]
    kept = predictor.together(sensitivity, cache, weights, len(ends) - 1)
    retention: Floats = above_floor(kept[0][place], np.array(floors))
    return retention


def planned_weight_bits(row: AccuracyRow) -> float:
    """Of a published checkpoint of fewer than 4 bits what a plan takes it for; a calibration's rows
    have bits on that scale."""
    return row.weight_bits if row.provenance == "calibrated" else checkpoint_bits(row.weight_bits)


def write_predicted(path: Path, held_out: HeldOut, z: float) -> None:
    """Left-out predictions as CSV, a line for each row in the rows' order: by kind, as the task by
    name, and whether the interval of `z` holds the score."""
    header = ["model", "task", "context", "retention", "predicted", "task_named", "held"]
    held = held_out.covered(z)
    lines = [
        [
            *(row.model, row.task, str(row.context), f"{row.retention:.6g}"),
            *(f"{held_out.predicted[i]:.4f}", f"{held_out.named[i]:.4f}", f"{held[i]:.0f}"),
        ]
        for i, row in enumerate(held_out.rows)
    ]
    write_table(path, header, lines)


def read_predicted(path: Path, rows: Sequence[AccuracyRow]) -> Floats:
    """What `write_predicted` wrote, [N]. Raises BadInput where it is not about these rows."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    named = [(r.model, r.task, str(r.context), f"{r.retention:.6g}") for r in rows]
    if named != [(x["model"], x["task"], x["context"], x["retention"]) for x in lines]:
        raise BadInput(
            f"{path.name} is not about the rows beside it",
            "python -m kvpareto.calibration.evidence.refit_published --published",
        )
    return np.array([float(line["predicted"]) for line in lines])
