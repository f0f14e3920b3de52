"""From measured rows to the coefficients that a plan uses.

A model's own rows are fitted together with the published ones, in the one regression: they move
its own effects furthest, and what it shares with other models moves with them. How wide its
intervals must be is taken from its own configurations, each left out in turn.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ...planner.accuracy import predict as accuracy
from ...planner.accuracy.calibrations import fingerprint, name_of
from ...planner.accuracy.key_noise.at_hand import payload_of, ranges_of
from ...planner.accuracy.measured_configs import MeasuredRetention
from ...planner.accuracy.model_features import shape_of
from ...planner.accuracy.model_sensitivity import ModelSensitivity
from ...planner.accuracy.predictor import Predictor
from ...planner.formats.configuration import Configuration
from ...planner.models.spec import ModelSpec
from ..measure.early_stopping import MOST_KEPT
from ..measure.layer_sensitivity import Sensitivity
from ..records.record_file import WINDOW, Record
from .accuracy_rows import AccuracyRow, read_rows, row_of
from .calibrated_noise import as_fitted, fit_calibrated_noise, prior_of
from .coefficients import to_payload
from .collapse import breaking_context, broken_configurations
from .cross_validation import Collector, HeldOut, Misfits, misfits_of, observed, with_misfits
from .interval_widths import conformal_z
from .leave_out import leave_out
from .mixed_effects import KnownModel
from .published import FOLDER, read_models
from .regression import fit_rows

FOLDS = 5
FEW = 10
"""Left-out rows below which the width of the intervals is that of the published models' too."""
MANY = 12
"""Measured configurations from which on a model gets its own noise beside the regression: after 16
runs of the recall models it is 2.9 and 4.9 points off, the regression alone 4.7 and 11.8."""


def fit_profile(spec: ModelSpec, records: Sequence[Record]) -> dict[str, Any] | None:
    """The payload of accuracy.json for `spec`; None where no row says anything about accuracy."""
    shipped = starting_fit(spec)
    models = {line["key"]: KnownModel.read(line) for line in read_models(FOLDER / "models.csv")}
    own = _own_model(spec, shipped, models)
    probed = Sensitivity.of(records)
    if probed is not None:
        own = replace(own, features=replace(own.features, outliers=probed.outliers))
    models[own.key] = own
    plain = [record for record in records if not Configuration.parse(record.config).affine]
    measured = [row for record in plain if (row := to_row(record, own.key)) is not None]
    if not measured:
        return None
    rows = [*read_rows(FOLDER / "accuracy.csv"), *measured]
    with threadpool_limits(1):  # the matrices are small: threads only wait for each other
        full = fit_rows(rows, models, first_guesses(shipped))
        start = dict(zip(full.layout.names, full.theta.tolist(), strict=True))
        misfits, between_sources = misfits_of(shipped)
        held_out = _hold_out(rows, own, models, start, misfits)
    z = dict(shipped.payload["z"])
    held_out_z = conformal_z(held_out) if held_out is not None else 0.0
    few = held_out is None or len(held_out.rows) < FEW
    z["known"] = max(held_out_z, z["known"]) if few else held_out_z
    payload = to_payload(full, rows, models, FOLDER, z)
    payload = dict(with_misfits(Predictor(payload), misfits, between_sources).payload)
    payload |= {
        "own": own.key,
        "fingerprint": fingerprint(spec),
        "measured": measured_configurations(records),
        "breaks": breaking_context(records),
        "broken": broken_configurations(records),
        "held_out": {},
    }
    if own.features.ranges is not None and not own.features.ranges.name:
        payload["key_ranges"] = payload_of(own.features.ranges)  # the checkpoint may go away
    if probed is not None:
        payload["probed"] = probed.payload()
    if held_out is not None:
        errors = np.abs(held_out.predicted - observed(held_out.rows))
        payload["held_out"] = {
            "rows": len(errors),
            "mae": round(float(errors.mean()), 4),
            "coverage": round(float(held_out.covered(z["known"]).mean()), 3),
        }
    if len({_configuration(row) for row in measured}) >= MANY:
        attention = probed.attention if probed is not None else None
        features = replace(own.features, attention=attention)
        known = replace(own, features=as_fitted(features, [row.kind for row in measured]))
        payload |= own_noise(measured, known, shipped, shipped.models.of(spec))
    return json.loads(json.dumps(payload))


def starting_fit(spec: ModelSpec) -> Predictor:
    """The published fit as a calibration of this model starts from it.

    Published rows of the model, or of one of its shape, count keys in units of their own, and its
    checkpoint's keys are then not read. What is read says more: Qwen2.5-Coder-1.5B is 2.5 points
    off after a fifth of its runs so, and 9.9 by the rows of its shape. So those rows are left out
    where the keys are at hand.
    """
    published = accuracy.published()
    if published.models.of(spec).features.ranges is not None or ranges_of(spec) is None:
        return published
    shape = list(shape_of(spec))
    known = published.payload["models"].items()
    models = {key: model for key, model in known if model["shape"] != shape}
    return Predictor({**published.payload, "models": models})


def own_noise(
    measured: Sequence[AccuracyRow], own: KnownModel, shipped: Predictor, effects: ModelSensitivity
) -> dict[str, Any]:
    """The model's own noise, how wide its intervals must be, and what that was taken from; the
    prior is what the shipped fit expects of a model with these `effects`."""
    attention = own.features.attention
    effects = replace(effects, features=replace(effects.features, attention=attention))
    prior = prior_of(shipped, effects)
    number: dict[tuple[object, ...], int] = {}
    groups = [number.setdefault(_configuration(row), len(number)) for row in measured]
    with threadpool_limits(1):
        fitted = fit_calibrated_noise(measured, own, prior)
        left_out = leave_out(measured, groups, own, prior)
    return {
        "own_noise": {
            "values": {name: round(value, 5) for name, value in fitted.values.items()},
            "formats": [[code, round(value, 5)] for code, value in fitted.formats.items()],
            "z": left_out.shift,
            "kind_z": {k: round(z, 4) for k, z in left_out.shifts(prior).items()},
            **({"attention": attention.flat} if attention is not None else {}),
        },
        "held_out": {
            "rows": len(measured),
            "mae": round(left_out.error, 4),
            "coverage": round(left_out.coverage, 3),
        },
    }


def to_row(record: Record, key: str) -> AccuracyRow | None:
    """A row of the regression; None for a failure, the unquantized model, or a task on which the
    unquantized model fails. Retention and its error lie within 0 and MOST_KEPT."""
    config = Configuration.parse(record.config)
    quantized = config.quantizes_kv or config.weight_bits < 16
    if record.outcome != "ok" or record.retention is None or not quantized:
        return None
    context = int(record.details.get(WINDOW, record.context))
    retention = min(max(record.retention, 0.0), MOST_KEPT)
    kept = MeasuredRetention(retention, min(record.retention_sd or 0.0, MOST_KEPT))
    source = f"measured with kvpareto {record.environment.kvpareto}, seed {record.seed}"
    return row_of(config, key, record.task, record.kind, context, kept, source)


def measured_configurations(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Retention of each configuration that was run, by context and kind of task: the mean over
    the tasks of a kind, with the error of that mean."""
    by_run: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        row = to_row(record, "")
        if row is not None:
            kinds = by_run.setdefault((record.config, record.context), {})
            kinds.setdefault(record.kind, []).append((row.retention, row.sd))
    return [
        {"config": config, "context": context, "kinds": {k: mean(v) for k, v in kinds.items()}}
        for (config, context), kinds in by_run.items()
    ]


def mean(values: Sequence[tuple[float, float]]) -> list[float]:
    """[mean, standard error] of independent values with their errors."""
    retention = sum(value for value, _ in values) / len(values)
    error = sum(sd * sd for _, sd in values) ** 0.5 / len(values)
    return [round(retention, 6), round(error, 6)]


def _own_model(spec: ModelSpec, shipped: Predictor, models: Mapping[str, KnownModel]) -> KnownModel:
    """The model as the regression knows it: under its published key if it has rows there."""
    key = shipped.models.key_of(spec)
    if key is not None:
        return models[key]
    name = name_of(spec)
    features = shipped.models.of(spec).features
    return KnownModel(f"own:{name}", features, (name,), shape_of(spec))


def first_guesses(shipped: Predictor) -> dict[str, float]:
    """Of a regression, first guesses from the shipped fit: most of the way is gone already."""
    payload = shipped.payload
    population = payload["population"]
    guesses = dict(zip(population["names"], population["mean"], strict=True))
    return guesses | {name: mean for name, (mean, _) in payload["coefficients"].items()}


def _hold_out(
    rows: Sequence[AccuracyRow],
    own: KnownModel,
    models: Mapping[str, KnownModel],
    start: Mapping[str, float],
    misfits: Misfits,
) -> HeldOut | None:
    """This model's rows, each predicted from a fit without its configuration; None for fewer
    than two configurations."""
    number: dict[tuple[object, ...], int] = {}
    for row in rows:
        if row.model == own.key:
            number.setdefault(_configuration(row), len(number))
    if len(number) < 2:
        return None
    collected = Collector(rows, models)
    for fold in range(min(FOLDS, len(number))):
        out = [
            i
            for i, row in enumerate(rows)
            if row.model == own.key and number[_configuration(row)] % FOLDS == fold
        ]
        left = set(out)
        kept = [row for i, row in enumerate(rows) if i not in left]
        z = {"unseen": 1.0, "known": 1.0}
        refit = fit_rows(kept, models, start)
        predictor = Predictor(to_payload(refit, kept, models, FOLDER, z))
        sensitivity = predictor.models.known(own.key, own.features)
        collected.add(out, predictor, sensitivity)
    return collected.held_out(misfits)


def _configuration(row: AccuracyRow) -> tuple[object, ...]:
    return tuple(
        getattr(row, name)
        for name in AccuracyRow.__dataclass_fields__
        if name not in ("task", "kind", "context", "retention", "sd", "weight", "source")
    )
