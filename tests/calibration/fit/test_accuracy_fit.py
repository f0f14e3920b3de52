"""The fit: repeatable, better than what is simpler, honest about its width, open to new rows."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvpareto.calibration.evidence.accuracy_tables import Report
from kvpareto.calibration.evidence.refit_published import Fitted, fit_tables, main, to_text
from kvpareto.calibration.fit.accuracy_rows import Row, read_rows
from kvpareto.calibration.fit.coefficients import data_hash, to_payload
from kvpareto.calibration.fit.cross_validation import predict_rows, read_predicted
from kvpareto.calibration.fit.mixed_effects import Model
from kvpareto.calibration.fit.published import FOLDER, read_models
from kvpareto.calibration.fit.regression import Fit, Problem, fit_rows
from kvpareto.planner.accuracy.predictor import Predictor

SHIPPED = json.loads((FOLDER / "accuracy.json").read_text(encoding="utf-8"))
ROWS = read_rows(FOLDER / "accuracy.csv")
MODELS = {line["key"]: Model.read(line) for line in read_models(FOLDER / "models.csv")}
Z = {"unseen": 1.0, "known": 1.0}

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def fitted() -> tuple[Fitted, Report]:
    """The whole of `python -m kvpareto.calibration.evidence.refit_published --published`, but
    writing nothing."""
    return fit_tables()


@pytest.fixture(scope="module")
def full() -> Fit:
    return fit_rows(ROWS, MODELS)


def flat(value: object, path: str = "") -> dict[str, object]:
    """Leaves of nested JSON by path."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{path}/{i}").items()}
    return {path: value}


def test_a_refit_gives_the_shipped_coefficients(fitted: tuple[Fitted, Report]) -> None:
    again, shipped = flat(json.loads(to_text(fitted[0].payload))), flat(SHIPPED)
    assert again.keys() == shipped.keys()
    for path, value in shipped.items():
        expected = pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value
        assert again[path] == expected, path


def test_a_refit_gives_the_shipped_predictions_for_models_left_out(
    fitted: tuple[Fitted, Report],
) -> None:
    shipped = read_predicted(FOLDER / "held_out.csv", ROWS)
    assert shipped == pytest.approx(fitted[0].models.predicted, abs=2e-3)


def test_the_data_are_the_ones_that_were_fitted(full: Fit) -> None:
    assert SHIPPED["data"] == {
        "rows": len(ROWS),
        "sha256": data_hash(ROWS, full.layout.models),
        "provenance": {"published": len(ROWS)},
    }
    changed = [*ROWS[:-1], replace(ROWS[-1], retention=0.5)]
    assert data_hash(changed, full.layout.models) != SHIPPED["data"]["sha256"]


def test_fitting_twice_gives_the_same_text(full: Fit) -> None:
    again = fit_rows(ROWS, MODELS)
    texts = [to_text(to_payload(f, ROWS, MODELS, FOLDER, Z)) for f in (full, again)]
    assert texts[0] == texts[1]


def test_left_out_models_are_predicted_better_than_by_any_baseline(
    fitted: tuple[Fitted, Report],
) -> None:
    held_out = fitted[1].summary["leave_one_model_out"]
    assert set(held_out["baseline_mae"]) == {"bit pair", "linear", "no loss"}
    assert held_out["mae"] < 0.6 * min(held_out["baseline_mae"].values())
    assert held_out["groups"] == 19


def test_the_intervals_cover(fitted: tuple[Fitted, Report]) -> None:
    unseen = fitted[1].summary["leave_one_model_out"]
    known = fitted[1].summary["leave_one_configuration_out"]
    assert unseen["coverage"] >= 0.9
    assert unseen["coverage_each_model_alike"] >= 0.9
    assert unseen["coverage_without_sampling_error"] >= 0.85
    assert known["coverage"] >= 0.9
    narrow = fitted[0].models.covered(0.1).mean()
    assert narrow < unseen["coverage"]  # coverage is earned by width


def test_the_planner_evaluates_what_was_fitted(full: Fit) -> None:
    """The regression's own arithmetic against the planner's, on every row."""
    predictor = Predictor(to_payload(full, ROWS, MODELS, FOLDER, Z))
    expected = Problem(ROWS, full.layout, MODELS).retention(full.theta)
    for key in predictor.payload["models"]:
        own = [i for i, row in enumerate(ROWS) if row.model == key]
        effects = predictor.models.known(key, MODELS[key].features)
        got = predict_rows(predictor, effects, [ROWS[i] for i in own], MODELS, 0.0)
        assert got == pytest.approx(expected[own], abs=2e-4)


def test_derivatives_are_those_of_the_retention(full: Fit) -> None:
    problem = Problem(ROWS, full.layout, MODELS)
    exact = problem.jacobian(full.theta)
    rng = np.random.default_rng(1)
    for i in rng.choice(len(full.theta), 25, replace=False):
        step = np.zeros_like(full.theta)
        step[i] = 1e-5
        numeric = (
            problem.retention(full.theta + step) - problem.retention(full.theta - step)
        ) / 2e-5
        assert exact[:, i] == pytest.approx(numeric, abs=1e-6), full.layout.names[i]


def measured(model: str, retention: float) -> list[Row]:
    """Twelve calibrated rows of per-token int4 keys that keep `retention` of their score."""
    base = next(r for r in ROWS if r.task.startswith("120-case") and r.model == "qwen2.5-7b")
    return [
        replace(
            base,
            model=model,
            task=f"needle-{i}",
            group_size=group,
            retention=retention,
            sd=0.01,
            weight=1.0,
            provenance="calibrated",
        )
        for i in range(4)
        for group in (32, 64, 128)
    ]


def test_measured_rows_of_a_new_model_come_first() -> None:
    new = replace(MODELS["llama-3.1-8b"], key="my-model", names=("my-model",))
    models = MODELS | {"my-model": new}
    rows = ROWS + measured("my-model", 0.3)
    predictor = Predictor(to_payload(fit_rows(rows, models), rows, models, FOLDER, Z))
    entry = predictor.payload["models"]["my-model"]
    assert (entry["provenance"], entry["rows"]) == ("calibrated", 12)
    own = predict_rows(
        predictor,
        predictor.models.known("my-model", new.features),
        measured("my-model", 0.3)[1:2],
        models,
        0.0,
    )
    unseen = predict_rows(
        predictor,
        predictor.models.unseen(new.features),
        measured("my-model", 0.3)[1:2],
        models,
        0.0,
    )
    assert own[0] == pytest.approx(0.3, abs=0.15)
    assert unseen[0] > 0.7


def test_measured_rows_overrule_published_ones() -> None:
    """Twelve first-hand rows that contradict the collapse win over the tables."""
    rows = ROWS + measured("qwen2.5-7b", 0.95)
    predictor = Predictor(to_payload(fit_rows(rows, MODELS), rows, MODELS, FOLDER, Z))
    assert predictor.payload["models"]["qwen2.5-7b"]["provenance"] == "calibrated"
    effects = predictor.models.known("qwen2.5-7b", MODELS["qwen2.5-7b"].features)
    found = predict_rows(predictor, effects, measured("qwen2.5-7b", 0.95)[:1], MODELS, 0.0)
    assert found[0] > 0.7


def test_the_docs_show_the_tables_of_this_fit(fitted: tuple[Fitted, Report]) -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    for name, table in fitted[1].tables.items():
        shown = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", page, flags=re.DOTALL)
        assert shown is not None, name
        assert shown[1] == table


def test_measured_rows_are_not_fitted_into_the_shipped_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--published", "--rows", "measured.csv"])
    assert stopped.value.code == 2
    assert "--output" in capsys.readouterr().err
