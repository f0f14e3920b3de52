"""The run that tells most of all others: its arithmetic by hand, and on rows that were measured."""

import numpy as np
import pytest

from kvpareto.calibration.design import telling_run
from kvpareto.calibration.design.telling_run import (
    OWN,
    Belief,
    Points,
    TellingDesign,
    doubted_pick,
    expected_error,
    most_telling,
)
from kvpareto.calibration.evidence.replayed_models import KEY, recall_grid, recall_spec
from kvpareto.calibration.fit.accuracy_rows import row_of
from kvpareto.calibration.fit.calibrated_noise import NoiseRows, fit_calibrated_noise, prior_of
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.planner.accuracy.measured_configs import MeasuredRetention
from kvpareto.planner.accuracy.model_sensitivity import shape_of
from kvpareto.planner.accuracy.predict import published
from kvpareto.planner.formats.configuration import Configuration

RNG = np.random.default_rng
FORMATS = ("k2v16", "k4v16", "k8v16", "k16v2", "k16v4")


def points(*memory: float) -> Points:
    """One row for each candidate, all on one frontier."""
    rows = [
        row_of(
            Configuration.parse(f"w16a16-{bits}"), KEY, "t", "reasoning", 1024,
            MeasuredRetention(0.5, 0.0),
        )
        for bits in FORMATS[: len(memory)]
    ]  # fmt: skip
    return Points(rows, np.arange(len(rows)), np.array(memory))


def odds(*kept: float) -> np.ndarray:
    retention = np.array(kept)
    return np.log((1 - retention) / retention)


def test_expected_error_by_hand() -> None:
    """Of a normal u with a small spread s at r = 0.5, r has the spread s / 4, and its mean absolute
    deviation is sqrt(2 / pi) of that; after a run that leaves half of s, half of it."""
    mean, spread = np.zeros(3), np.full(3, 0.1)
    error = expected_error(mean, spread, np.array([0.1, 0.05, 0.0]))
    assert error[0] == pytest.approx(0.1 / 4 * np.sqrt(2 / np.pi), rel=0.12)  # seven points
    assert error[1] == pytest.approx(error[0] / 2, rel=0.01)
    assert error[2] == 0


def test_what_is_lost_or_kept_for_sure_has_no_error() -> None:
    lost, kept = expected_error(np.array([15.0, -15.0]), np.full(2, 1.0), np.full(2, 1.0))
    assert max(lost, kept) < 1e-4


def test_a_run_that_tells_of_others_is_taken_before_one_that_is_less_sure_alone() -> None:
    """The first candidate has the widest spread, of its own; the next three share theirs."""
    root = np.zeros((5, 3))
    root[0, 0] = 1.2
    root[1:4, 1] = 1.0
    root[4, 2] = 0.3
    belief = Belief(np.zeros(5), root)
    made = points(1, 2, 3, 4, 5)
    assert most_telling(belief, made, (), 0.01, RNG(0)) in (1, 2, 3)
    assert most_telling(belief, made, (1, 2, 3), 0.01, RNG(0)) == 0
    assert most_telling(belief, made, range(5), 0.01, RNG(0)) is None


def test_how_thoroughly_formats_fail_is_not_asked() -> None:
    root = np.diag([3.0, 3.0, 0.5, 0.2, 0.2])
    belief = Belief(np.array([20.0, -20.0, 0.0, 1.0, 1.0]), root)
    assert most_telling(belief, points(1, 2, 3, 4, 5), (), 0.01, RNG(0)) == 2


def test_the_pick_that_may_be_beaten_is_measured() -> None:
    """The dearest was run and keeps 0.93. Of the cheaper ones one is believed to keep 0.95, not
    for sure; another is known to be lost."""
    belief = Belief(odds(0.05, 0.95, 0.93), np.zeros((3, 1)) + 0.6)
    made = points(1.0, 2.0, 3.0)
    kept = np.array([np.nan, np.nan, 0.93])
    index, gain = doubted_pick(belief, made, (2,), kept)
    assert index == 1
    assert 0.01 < gain < 0.05
    measured = np.array([np.nan, 0.6, 0.93])
    assert doubted_pick(belief, made, (1, 2), measured)[1] < 1e-3


def test_a_promise_in_doubt_is_measured_and_a_failed_run_is_no_pick() -> None:
    belief = Belief(odds(0.5, 0.99, 0.995), np.zeros((3, 1)))
    made = points(1.0, 2.0, 3.0)
    nothing = np.full(3, np.nan)
    index, gain = doubted_pick(belief, made, (), nothing)
    spread = np.hypot(OWN / np.sqrt(2), 0.4)
    assert index == 1
    assert gain == pytest.approx(0.0099 * spread * np.sqrt(2 / np.pi), rel=0.35)
    assert doubted_pick(belief, made, (1,), nothing)[0] != 1


def test_gradient_is_the_slope_of_predictions_and_rows_narrow_what_they_tell_of() -> None:
    measured = recall_grid("recall-third")
    sensitivity = published().models.of(measured.spec)
    model = KnownModel(KEY, sensitivity.features, (), shape_of(measured.spec))
    prior = prior_of(published(), sensitivity)
    rows = [row for by in measured.rows.values() for here in by.values() for row in here]
    some, data = rows[::25], NoiseRows(rows[::7], model)
    fitted = fit_calibrated_noise(some, model, prior)
    slopes, here = data.gradient(fitted)
    assert here == pytest.approx(data.predict(fitted.noise), abs=1e-12)
    for number, name in enumerate(fitted.values):
        if name in ("gamma", "scale:plain", "tile", "plain:rotation=1", "key_bits:bits=2"):
            ends = [
                data.predict(type(fitted)({**fitted.values, name: fitted.values[name] + step},
                                          fitted.formats).noise)
                for step in (1e-4, -1e-4)
            ]  # fmt: skip
            assert slopes[:, number] == pytest.approx((ends[0] - ends[1]) / 2e-4, abs=1e-3), name
    fewer = Belief.of(some[:3], model, prior, data)
    more = Belief.of(some, model, prior, data)
    assert np.median(more.variance) < np.median(fewer.variance)
    assert more.mean.shape == (len(data.rows),)
    kept = 1 / (1 + np.exp(more.mean))
    assert kept == pytest.approx(np.clip(data.predict(fitted.noise), 1e-9, 1 - 1e-9), abs=1e-6)


@pytest.mark.parametrize(
    ("number", "gain", "last", "on_the_frontier"),
    [
        (12, 0.009, False, False),
        (12, 0.01, False, True),
        (13, 0.5, False, False),  # out of turn
        (13, 0.029, True, False),
        (13, 0.03, True, True),  # no run comes after it that would look there
    ],
)
def test_late_runs_look_at_the_frontier_in_turn_and_the_last_where_much_is_at_stake(
    number: int, gain: float, last: bool, on_the_frontier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, some = recall_spec("recall-third"), points(*range(5))
    sensitivity = published().models.of(spec)
    model = KnownModel(KEY, sensitivity.features, (), shape_of(spec))
    design = TellingDesign(some, model, prior_of(published(), sensitivity))
    monkeypatch.setattr(telling_run, "doubted_pick", lambda *_: (3, gain))
    monkeypatch.setattr(telling_run, "most_telling", lambda *_: 4)
    tried = list(range(number))
    chosen = design.next(some.rows[:2], tried, np.zeros(5), last)
    assert chosen == (3 if on_the_frontier else 4)
