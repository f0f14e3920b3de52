"""Predictions for models of another size than any measured: their intervals are wider, and hold."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kvpareto.calibration.grid.held_out import FILE as GRID
from kvpareto.calibration.grid.reading import GridRun, read_runs
from kvpareto.planner.accuracy import model_sensitivity as model_effects
from kvpareto.planner.accuracy.interval import inside
from kvpareto.planner.accuracy.model_sensitivity import FittedSensitivities, ModelSensitivity
from kvpareto.planner.accuracy.predict import average, predict_many, published
from kvpareto.planner.load_model import load_model
from tests.support.accuracy_specs import UNSEEN, spec_of

RECALL = Path(__file__).parents[3] / "profiles" / "recall"


@cache
def grid() -> list[GridRun]:
    return read_runs(GRID)


def covered_share(name: str) -> float:
    """Share of the recall grid's runs inside the intervals of the published fit."""
    runs = [run for run in grid() if run.model == name]
    spec = load_model(str(RECALL / name), offline=True)
    covered = []
    for context in sorted({run.context for run in runs}):
        here = [run for run in runs if run.context == context]
        found = predict_many(spec, [run.config for run in here], context, published())
        kept = [average(each) for each in found]
        ends = (np.array([getattr(k, end) for k in kept]) for end in ("retention", "low", "high"))
        measured = np.minimum([run.overall.retention for run in here], 1.0)
        sd = np.array([run.overall.sd for run in here])
        covered.append(inside(measured, *ends, sd))
    return float(np.concatenate(covered).mean())


@pytest.mark.parametrize("name", ["recall", "recall-outliers"])
def test_a_model_of_another_size_class_is_held_by_its_interval(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7.4 million parameters, predicted from models of 3 to 235 billion: without the term for the
    size, the interval holds less than two thirds of these runs."""
    assert covered_share(name) >= 0.9
    monkeypatch.setattr(model_effects, "SIZE_SPREAD", 0.0)
    assert covered_share(name) < 0.65


def test_distance_from_the_measured_sizes_widens_and_is_said() -> None:
    models = published().models
    features = models.of(spec_of(UNSEEN)).features

    def at(billions: float) -> ModelSensitivity:
        return models.unseen(replace(features, parameters_b=billions))

    assert at(2.0).notes == at(220.0).notes  # within a doubling of 3.1 to 120, of two families
    small, tiny, huge = at(0.1), at(0.007), at(5000.0)
    assert (at(2.0).spread[:3] < small.spread[:3]).all()
    assert (small.spread < tiny.spread).all()
    assert (at(400.0).spread < huge.spread).all()
    for found in (small, tiny, huge):
        assert any("of about this size" in note for note in found.notes)
    # The reverse: measured at 7 million, asked about 7 billion.
    measured = {"recall": {**published().payload["models"]["qwen3-8b"], "parameters_b": 0.0074}}
    only_tiny = FittedSensitivities({**published().payload, "models": measured})
    assert (only_tiny.unseen(replace(features, parameters_b=7.0)).spread > at(7.0).spread + 3).all()
