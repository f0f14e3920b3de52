"""Fit the accuracy regression and write what the planner evaluates.

    python -m kvpareto.calibration.evidence.refit_published --published
    profiles/published/accuracy.json and
                                                       held_out.csv, the tables of the docs
    python -m kvpareto.calibration.evidence.refit_published --rows my.csv --models my_models.csv
    --output my.json
                                                       with measured rows beside the published

Measured rows need no other code: they carry provenance `calibrated`, weight 1 and their own
sampling error. A model's own rows move its effects furthest, other calibrated models' rows move
the population and families, and published rows are what all of that starts from.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...planner.accuracy.predictor import Predictor
from ..fit.accuracy_rows import AccuracyRow, read_rows
from ..fit.coefficients import to_payload
from ..fit.cross_validation import (
    HeldOut,
    hold_out_configurations,
    hold_out_models,
    with_misfits,
    write_predicted,
)
from ..fit.interval_widths import conformal_z, hold_out_sources, kind_misfits, source_misfit
from ..fit.mixed_effects import KnownModel
from ..fit.published import FOLDER, read_models
from ..fit.regression import fit_rows
from ..records.profile_files import to_text
from .accuracy_tables import Report, make_report
from .left_out_sources import ForeseenRows, source_summary, sources_table
from .marked_tables import DOCS, write_tables


@dataclass(frozen=True)
class PublishedFit:
    """The JSON payload, and what was left out to calibrate it."""

    payload: dict[str, Any]
    models: HeldOut
    configurations: HeldOut
    """Of these, what is left out is told by tables that the fit has: no misfit between sources."""
    sources: ForeseenRows
    bases: tuple[str, ...]
    """What each prediction without the row's source rests on."""
    strangers: ForeseenRows
    """Of left-out models, at the width that plans show."""


def fit(
    rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel], folder: Path = FOLDER
) -> PublishedFit:
    """Fit all rows, then calibrate the intervals on what each kind of hold-out leaves out."""
    full = fit_rows(rows, models)
    start = dict(zip(full.layout.names, full.theta.tolist(), strict=True))
    left_out = hold_out_models(rows, models, folder, start)
    configurations = hold_out_configurations(rows, models, folder, start)
    unseen = conformal_z(left_out.held_out(), models)
    known = conformal_z(configurations.held_out())
    # what is known of a model never makes its interval wider than a stranger's
    z = {"unseen": max(unseen, known), "known": known}
    misfits = kind_misfits(left_out, z["unseen"])
    sources, bases = hold_out_sources(rows, models, folder, start, z)
    between = source_misfit(sources, misfits)
    payload = to_payload(full, rows, models, folder, z)
    payload = dict(with_misfits(Predictor(payload), misfits, between).payload)
    return PublishedFit(
        payload,
        left_out.held_out(misfits),
        configurations.held_out(misfits),
        ForeseenRows(tuple(rows), *sources.foreseen(None, misfits, between)),
        bases,
        ForeseenRows(tuple(rows), *left_out.foreseen(z["unseen"], misfits, between)),
    )


def fit_tables(
    extra_rows: Path | None = None, extra_models: Path | None = None, folder: Path = FOLDER
) -> tuple[PublishedFit, Report]:
    """Fit the published tables, and measured rows beside them; report the held-out errors.

    `extra_rows` has the columns of accuracy.csv; models that models.csv lacks come from
    `extra_models`, which has its columns.
    """
    lines = read_models(folder / "models.csv")
    lines += read_models(extra_models) if extra_models else []
    models = {line["key"]: KnownModel.read(line) for line in lines}
    rows = read_rows(folder / "accuracy.csv")
    rows += read_rows(extra_rows) if extra_rows else []
    fitted = fit(rows, models, folder)
    report = make_report(fitted.payload, fitted.models, fitted.configurations, models)
    tables = {
        **report.tables,
        "sources": sources_table(fitted.sources, fitted.bases, fitted.strangers),
    }
    summary = {**report.summary, "leave_one_source_out": source_summary(fitted.sources)}
    fitted.payload["held_out"] = summary
    return fitted, Report(tables, summary)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.evidence.refit_published")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--published", action="store_true", help="refit the shipped coefficients")
    where.add_argument("--output", type=Path, help="write another JSON; the shipped one stays")
    parser.add_argument("--rows", type=Path, help="CSV of measured rows, columns as accuracy.csv")
    parser.add_argument("--models", type=Path, help="CSV of their models, columns as models.csv")
    options = parser.parse_args(arguments)
    if options.published and (options.rows or options.models):
        parser.error("measured rows are fitted into another file: give --output")
    fitted, report = fit_tables(options.rows, options.models)
    output = options.output or FOLDER / "accuracy.json"
    output.write_text(to_text(fitted.payload), encoding="utf-8")
    if options.published:
        z = fitted.payload["z"]["unseen"]
        write_predicted(FOLDER / "held_out.csv", fitted.models, z)
    print(report.text)
    if options.published and DOCS.exists():
        write_tables(report.tables)


if __name__ == "__main__":
    main()
