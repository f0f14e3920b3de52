"""Sampling errors of scores and of paired differences, derived by hand."""

import math

import numpy as np
import pytest

from kvpareto.calibration.tasks.scores import Score, paired
from kvpareto.planner.errors import BadInput


def test_a_score_is_a_mean_with_its_standard_error() -> None:
    # mean 0.75; squared deviations 3 x 1/16 + 9/16 = 3/4; s^2 = 1/4; s / sqrt(4) = 1/4
    score = Score.of([1, 1, 1, 0])
    assert score.value == 0.75
    assert score.stderr == pytest.approx(0.25)
    assert score.per_item == (1.0, 1.0, 1.0, 0.0)


def test_one_item_has_the_largest_error_a_score_can_have() -> None:
    assert Score.of([1.0]).stderr == 0.5


def test_no_items_are_refused() -> None:
    with pytest.raises(BadInput, match="no items"):
        Score.of([])


def test_wilson_interval_of_a_perfect_score_is_not_empty() -> None:
    # p = 1, n = 20, z = 1.6449: centre (1 + z²/2n) / (1 + z²/n), half width (z²/2n) / (1 + z²/n),
    # so the low end is 1 / (1 + z²/n) = 1 / 1.13528 = 0.88084
    low, high = Score.of([1.0] * 20).interval(0.9)
    assert (low, high) == pytest.approx((0.88084, 1.0), abs=1e-5)


def test_wilson_interval_of_a_half() -> None:
    # p = 0.5: symmetric; half width z / (1 + z²/n) sqrt(0.25/n + z²/4n²) with n = 10, z = 1.96
    low, high = Score.of([1.0, 0.0] * 5).interval(0.95)
    assert (low, high) == pytest.approx((0.23659, 0.76341), abs=1e-5)


def test_a_paired_difference_forgets_what_both_share() -> None:
    # Differences 0, 0, 0, -1: mean -1/4, s² = 1/4, error 1/4, though either score alone has 1/4
    # and 0.2887 (unpaired: 0.3819).
    first, second = Score.of([1, 1, 0, 1]), Score.of([1, 1, 0, 0])
    found = paired(first, second)
    assert found.difference == -0.25
    assert found.stderr == pytest.approx(0.25)
    # r = 2/3; b - r a = 1/3, 1/3, 0, -2/3: mean 0, s² = (1/9 + 1/9 + 4/9) / 3 = 2/9;
    # error sqrt(2/9) / 2 / 0.75 = 0.31427
    assert found.retention == pytest.approx(2 / 3)
    assert found.retention_stderr == pytest.approx(math.sqrt(2 / 9) / 2 / 0.75)


def test_equal_runs_retain_everything_without_error() -> None:
    score = Score.of([1.0, 0.5, 0.0])
    found = paired(score, score)
    assert (found.difference, found.stderr) == (0.0, 0.0)
    assert (found.retention, found.retention_stderr) == (1.0, 0.0)


def test_retention_of_nothing_is_unknown() -> None:
    found = paired(Score.of([0.0, 0.0]), Score.of([0.0, 1.0]))
    assert found.retention is None
    assert found.retention_stderr is None
    assert found.difference == 0.5


def test_other_items_are_refused() -> None:
    with pytest.raises(BadInput, match="paired"):
        paired(Score.of([1, 0]), Score.of([1, 0, 1]))


def test_the_delta_method_matches_simulation() -> None:
    rng = np.random.default_rng(0)
    ratios, claimed = [], []
    for _ in range(2000):
        hard = rng.random(64)
        a, b = (hard < 0.9).astype(float), ((hard < 0.9) & (rng.random(64) < 0.8)).astype(float)
        found = paired(Score.of(a.tolist()), Score.of(b.tolist()))
        assert found.retention is not None
        assert found.retention_stderr is not None
        ratios.append(found.retention)
        claimed.append(found.retention_stderr)
    assert np.mean(claimed) == pytest.approx(np.std(ratios), rel=0.05)
