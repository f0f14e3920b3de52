"""Floors of the error: what rows alike and a model's own rows leave, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvpareto.calibration.evidence.accuracy_tables import NAMED_BY
from kvpareto.calibration.evidence.error_floor import (
    bits_of,
    by_median,
    floor_lines,
    floor_table,
    parted,
    replicate_of,
    replicates,
    ways_of_leaving_out,
)
from kvpareto.calibration.evidence.marked_tables import shown_table
from kvpareto.calibration.fit.accuracy_rows import read_rows
from kvpareto.calibration.fit.cross_validation import read_predicted
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.fit.published import FOLDER, read_models

DOCS = Path(__file__).parents[3] / "docs"
ROWS = read_rows(FOLDER / "accuracy.csv")


def test_rows_alike_leave_half_their_distance_times_the_root_of_two() -> None:
    scores = np.array([0.9, 1.0, 0.7, 0.5])
    off = replicates(scores, [[0, 1], [2], [3]])
    assert off[:2] == pytest.approx([0.1 / 2**0.5] * 2)
    assert np.isnan(off[2:]).all()


def test_rows_alike_estimate_the_error_of_a_perfect_prediction() -> None:
    scores = np.random.default_rng(0).normal(0.9, 0.02, (3000, 2))
    off = replicates(scores.ravel(), np.arange(6000).reshape(-1, 2).tolist())
    assert off.mean() == pytest.approx(np.abs(scores - 0.9).mean(), rel=0.03)


def test_the_median_of_others_does_not_see_the_row() -> None:
    scores = np.array([0.5, 0.9, 1.2])
    inside, outside = (by_median(scores, [[0, 1, 2]], out=out) for out in (False, True))
    assert inside == pytest.approx([0.4, 0.0, 0.3])
    assert outside == pytest.approx([0.5, 0.05, 0.5])  # of 1.05, at most 1, .85 and .7
    assert np.isnan(by_median(scores[:1], [[0]], out=True)).all()


def test_what_a_config_cannot_tell_apart_is_alike() -> None:
    row = next(row for row in ROWS if row.weight_bits == 4)
    other = replace(row, source="elsewhere", method="RTN", retention=0.1)
    assert replicate_of(other) == replicate_of(row)
    assert len(parted([row, other, replace(row, context=7)], replicate_of)) == 2
    assert bits_of(replace(row, context=7)) == bits_of(row)


def test_every_row_is_left_out_once_in_each_way() -> None:
    models = {m.key: m for m in map(KnownModel.read, read_models(FOLDER / "models.csv"))}
    ways = ways_of_leaving_out(ROWS, models)
    for parts in ways.values():
        assert sorted(i for part in parts for i in part) == list(range(len(ROWS)))
    families = {models[ROWS[part[0]].model].features.family for part in ways["a family"]}
    assert len(families) == len(ways["a family"]) < len(ways["a model and its relatives"])
    assert all(
        len({ROWS[i].source.split("@")[0][:NAMED_BY] for i in part}) == 1
        for part in ways["a source"]
    )


def test_the_page_shows_these_floors() -> None:
    predicted = read_predicted(FOLDER / "held_out.csv", ROWS)
    assert shown_table("floors", DOCS) == floor_table(ROWS, predicted)
    cache, weights, *_ = floor_lines(ROWS, predicted)
    assert cache[1] + weights[1] == len(ROWS)
