"""Errors of models that were left out: quantiles by class, and what they hold of the others."""

import json

import numpy as np
import pytest

from kvpareto.calibration.evidence.left_out_errors import LeftOutErrors, class_table, conformal
from kvpareto.calibration.fit.hardware.engine_runs import shipped_runs
from kvpareto.planner.models.read_config import read_model
from kvpareto.profiles import read


def errors_of(by_model: dict[str, tuple[str, float, float]], rows: int = 40) -> LeftOutErrors:
    """`rows` of each model around its own error, spread by its own deviation."""
    rng, columns, models, classes = np.random.default_rng(3), [], [], []
    for model, (of_class, middle, spread) in by_model.items():
        columns.append(rng.normal(middle, spread, (rows, 2)))
        models += [model] * rows
        classes += [of_class] * rows
    return LeftOutErrors(np.concatenate(columns), tuple(models), tuple(classes))


FOUR = errors_of(
    {
        "a": ("plain", 0.02, 0.05), "b": ("plain", -0.03, 0.05), "c": ("plain", 0.0, 0.05),
        "d": ("latent", 0.3, 0.02), "e": ("latent", 0.25, 0.02), "f": ("latent", 0.35, 0.02),
        "g": ("capped", 0.0, 0.001),
    }
)  # fmt: skip


def test_ends_hold_what_was_left_out() -> None:
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 0.10, 400)
    low, high = np.log(conformal(errors, 10))
    assert 0.95 <= np.mean((errors > low) & (errors < high)) <= 0.99
    assert conformal(np.zeros(400), 10) == pytest.approx((0.95, 1.05), abs=5e-3)
    # Four rows say little of the extremes, and so does one model.
    assert conformal(errors[:4], 10)[1] > float(np.exp(errors[:4].max()))
    assert conformal(errors, 1)[1] > conformal(errors, 10)[1] > conformal(errors, 100)[1]
    assert conformal(np.array([np.nan, np.nan]), 1) == pytest.approx((0.95, 1.05))


def test_a_class_has_ends_of_its_own() -> None:
    plain, latent = FOUR.ends(0, "plain"), FOUR.ends(0, "latent")
    assert plain[1] < 1.25
    assert latent[1] > np.exp(0.35)
    assert FOUR.median(0, "latent") == pytest.approx(1 - np.exp(-0.3), abs=0.03)


def test_one_model_is_not_said_more_narrowly_than_all_are() -> None:
    assert FOUR.ends(0, "capped") == FOUR.ends(0)


def test_a_class_without_rows_is_the_widest() -> None:
    known = [FOUR.ends(0, of_class) for of_class in FOUR.tried]
    assert FOUR.untried(0) == (min(low for low, _ in known), max(high for _, high in known))
    gone = np.full(FOUR.errors.shape, 0.9)
    wider = LeftOutErrors(FOUR.errors, FOUR.models, FOUR.classes, gone)
    assert wider.untried(0)[1] > np.exp(0.9)
    assert wider.trust()["untried"]["high"]["card"] == pytest.approx(wider.untried(0)[1], abs=1e-4)


def test_held_is_judged_by_the_other_models_alone() -> None:
    far = errors_of({"a": ("plain", 0, 0.05), "b": ("plain", 0, 0.05), "c": ("plain", 1.0, 0.01)})
    held = far.held(0)
    assert held[:80].mean() > 0.95  # by ends that c's rows widen
    assert held[80:].mean() == 0.0  # which a's and b's rows do not hold
    nan = far.errors.copy()
    nan[0, 0] = np.nan
    assert np.isnan(LeftOutErrors(nan, far.models, far.classes).held(0)[0])


def test_the_table_has_a_line_for_each_class() -> None:
    lines = class_table(FOUR).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| attention and dense FFNs",
        "| latent attention",
        "| capped attention scores",
        "| **all**",
    ]
    assert lines[3].split(" | ")[1:3] == ["120", "3"]


def test_configs_of_the_layers_models_are_there() -> None:
    lines = map(json.loads, read("calibrations/layer_shapes.jsonl").splitlines())
    described = {line["model"]: read_model(line["architecture"], line["model"]) for line in lines}
    runs = {row.model: row.spec for row in shipped_runs()}
    assert {"deepseek-v2-lite", "llama-4-scout", "granite-4.0-h-micro"} <= set(runs)
    assert all(runs[model] == spec for model, spec in described.items() if model in runs)
