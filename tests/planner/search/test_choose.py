"""The rules of choice, on points made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.search.choose import (
    SLOW_PREFILL,
    USABLE,
    choose,
    frontier,
    next_down,
    next_up,
    spread,
)
from kvpareto.planner.search.point_arrays import PointArrays
from kvpareto.planner.search.tie_breaking import NOISE, SAME_TIME

GB = 10**9


def points(rows: list[tuple[float, float, float, float, int]]) -> PointArrays:
    """Rows of (memory GB, retention's lower end, TTFT, TPOT, complexity)."""
    memory_gb, low, ttft, tpot, complexity = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return PointArrays(
        memory=(memory_gb * GB).astype(np.int64),
        low=low,
        retention=np.minimum(low + 0.005, 1.0),
        ttft=ttft,
        tpot=tpot,
        time=ttft + 100 * tpot,
        complexity=complexity.astype(np.int64),
        allowed=np.ones(len(rows), dtype=bool),
        usual=np.ones(len(rows), dtype=bool),
    )


def chosen(
    given: PointArrays,
    budget_gb: float,
    objective: str = "accuracy",
    loss: float | None = 0.1,
    risk: bool = False,
) -> int | None:
    found = choose(given, given.memory <= budget_gb * GB, objective, loss, risk)
    return found.index if found else None


def test_accuracy_takes_the_highest_lower_end_that_fits() -> None:
    given = points([(9, 0.99, 1, 0.1, 0), (7, 0.95, 1, 0.1, 1), (5, 0.90, 1, 0.1, 2)])
    assert [chosen(given, budget) for budget in (10, 8, 6, 4)] == [0, 1, 2, None]


def test_of_the_most_accurate_the_simpler_wins_and_then_the_faster() -> None:
    plain, fast = (9, 0.970, 20.0, 0.1, 1), (8, 0.970 + 0.9 * NOISE, 10.0, 0.1, 3)
    assert chosen(points([plain, fast]), 10) == 0
    faster = (9.5, 0.970, 20.0 / (1 + 2 * SAME_TIME), 0.05, 1)
    assert chosen(points([plain, fast, faster]), 10) == 2
    better = (8, 0.970 + 2 * NOISE, 0.9 * SLOW_PREFILL * 10, 0.3, 5)
    assert chosen(points([plain, fast, faster, better]), 10) == 3


def test_nobody_waits_for_a_first_token_that_takes_many_times_as_long() -> None:
    """But for who asks for the least memory."""
    slow = (8, 0.970 + 2 * NOISE, 1.1 * SLOW_PREFILL * 10, 0.1, 1)
    given = points([(9, 0.970, 10.0, 0.1, 1), slow])
    assert chosen(given, 10) == chosen(given, 10, "latency") == 0
    assert chosen(given, 10, "memory") == 1
    assert chosen(given, 8.5) == 1


def test_what_the_best_ones_interval_does_not_resolve_is_as_good() -> None:
    given = points([(9, 0.970, 9, 0.1, 5), (9, 0.945, 9, 0.1, 1)])
    sure = replace(given, retention=np.array([0.975, 0.99]))  # the best is known to half a point
    assert chosen(sure, 10) == 0
    unsure = replace(given, retention=np.array([0.996, 0.99]))  # known to 2.6 points
    assert chosen(unsure, 10) == 1


def test_of_promises_that_are_alike_the_better_predicted_ones_are_left() -> None:
    """3- and 4-bit weights promise as much within their intervals: what is predicted tells."""
    given = points([(9, 0.937, 9, 0.1, 5), (9, 0.910, 9, 0.1, 1)])
    four, three = 0.9965, 0.9965 - 1.2 * NOISE
    assert chosen(replace(given, retention=np.array([four, three])), 10) == 0
    assert chosen(replace(given, retention=np.array([four, four - 0.8 * NOISE])), 10) == 1


def test_nothing_is_recommended_below_what_must_be_kept_at_the_lower_end() -> None:
    given = replace(points([(7, 0.89, 9, 0.1, 0)]), retention=np.array([0.999]))
    assert chosen(given, 10) is None
    assert chosen(given, 10, loss=0.12) == 0
    found = choose(given, given.memory > 0, "accuracy", 0.1, risk=True)
    assert found is not None
    assert (found.index, found.safe) == (0, False)


def test_two_bits_need_a_calibration_or_an_accepted_risk() -> None:
    given = points([(7, 0.97, 9, 0.1, 0)])
    two_bits = replace(given, allowed=np.array([False]), usual=np.array([False]))
    assert chosen(two_bits, 10) is None
    assert chosen(two_bits, 10, risk=True) == 0
    assert chosen(replace(two_bits, allowed=np.array([True])), 10) == 0


def test_what_nobody_runs_is_taken_only_where_nothing_usual_is_safe() -> None:
    given = points([(9, 0.99, 9.1, 0.1, 0), (9, 0.92, 9, 0.1, 9), (5, 0.95, 9.1, 0.1, 0)])
    given = replace(given, usual=np.array([False, True, False]))
    assert [chosen(given, budget) for budget in (10, 8)] == [1, 2]
    assert chosen(given, 10, "memory") == 1


@pytest.mark.parametrize("objective", ["accuracy", "latency", "memory"])
def test_what_nobody_runs_is_taken_where_it_is_better_in_all_respects(objective: str) -> None:
    """More memory must not buy a worse plan: 64-token chunks of the plain model that fit a smaller
    budget, before usual chunks of 4-bit weights that need twice as much."""
    unusual, usual = (5, 0.99, 9, 0.1, 1), (9, 0.92, 10, 0.1, 2)
    given = replace(points([unusual, usual]), usual=np.array([False, True]))
    assert [chosen(given, budget, objective) for budget in (6, 10)] == [0, 0]
    for worse in ((9.5, 0.99, 9, 0.1, 1), (5, 0.925, 9, 0.1, 1), (5, 0.99, 10.5, 0.1, 1)):
        given = replace(points([worse, usual]), usual=np.array([False, True]))
        assert chosen(given, 10, objective) == 1
    slower = replace(points([(5, 0.99, 9, 0.101, 1), usual]), usual=np.array([False, True]))
    assert chosen(slower, 10, objective) == 1


def test_of_equals_the_simplest_is_taken_and_of_these_the_smallest() -> None:
    given = points([(7, 0.97, 10, 0.1, 3), (9, 0.97, 10, 0.1, 1), (8, 0.97, 10, 0.1, 1)])
    assert chosen(given, 10) == 2


def test_latency_takes_the_fastest_that_loses_no_more_than_is_accepted() -> None:
    given = points([(9, 0.99, 9, 0.1, 0), (7, 0.96, 5, 0.05, 1), (5, 0.80, 1, 0.01, 2)])
    assert chosen(given, 10, "latency", 0.05) == 1
    assert chosen(given, 10, "latency", 0.25) == 2
    assert chosen(given, 10, "latency", 0.001) is None


def test_memory_takes_the_smallest_and_not_the_slowest_of_the_smallest() -> None:
    given = points([(9, 0.99, 1, 0.1, 0), (5.0, 0.97, 90, 0.1, 1), (5.05, 0.97, 2, 0.1, 1)])
    assert chosen(given, 10, "memory", 0.05) == 2


def test_a_loss_is_held_by_the_lower_end_if_it_can_be() -> None:
    # The second is predicted to keep 0.98 but only 0.94 is sure.
    sure, unsure = (9, 0.96, 9, 0.1, 0), (7, 0.94, 1, 0.1, 0)
    given = replace(points([sure, unsure]), retention=np.array([0.97, 0.98]))
    assert chosen(given, 10, "latency", 0.05) == 0
    assert chosen(given, 8, "latency", 0.05) is None
    found = choose(given, given.memory <= 8 * GB, "latency", 0.05, risk=True)
    assert found is not None
    assert (found.index, found.safe) == (1, False)


def test_where_nothing_holds_the_loss_the_least_unsure_are_left() -> None:
    unsure, very_unsure = (7, 0.94, 9, 0.1, 0), (7, 0.80, 1, 0.01, 0)
    given = replace(points([unsure, very_unsure]), retention=np.array([0.98, 0.98]))
    assert chosen(given, 10, "latency", 0.05, risk=True) == 0


def test_what_destroys_the_model_is_never_recommended() -> None:
    given = points([(5, USABLE - 0.02, 1, 0.1, 0), (9, 0.99, 1, 0.1, 0)])
    assert chosen(given, 6) is None
    assert chosen(given, 6, loss=None, risk=True) is None
    assert frontier(given).tolist() == [1]


def test_the_frontier_keeps_what_is_best_in_something_and_one_of_equals() -> None:
    given = points(
        [
            (9, 0.99, 5, 0.1, 2),  # most accurate
            (9, 0.99, 5, 0.1, 1),  # its equal, simpler: stands for both
            (5, 0.90, 5, 0.1, 2),  # smallest
            (9, 0.90, 1, 0.1, 2),  # first token soonest
            (9, 0.90, 5, 0.01, 2),  # fastest afterwards
            (9.1, 0.90, 5, 0.1, 0),  # beaten
            (5.0001, 0.9001, 5, 0.1, 2),  # differs from the smallest by less than a step
        ]
    )
    assert sorted(frontier(given).tolist()) == [1, 2, 3, 4]


def test_steps_up_and_down_are_worth_taking() -> None:
    given = points(
        [
            (6, 0.95, 9, 0.1, 0),
            (8, 0.955, 9, 0.1, 0),  # up, but not worth it
            (10, 0.98, 9, 0.1, 0),
            (10.1, 0.98, 1, 0.1, 0),  # hardly larger and much faster
            (12, 0.99, 9, 0.1, 0),
            (5.9, 0.94, 9, 0.1, 0),  # hardly smaller
            (5, 0.93, 9, 0.1, 0),
            (4, 0.80, 9, 0.1, 0),
        ]
    )
    assert next_up(given, 0, 7 * GB, 0.1) == 3
    assert next_down(given, 0, 0.1) == 6
    assert next_up(given, 4, 13 * GB, 0.1) is None
    assert next_down(given, 6, 0.1) is None  # the last is not safe


def test_shown_points_keep_the_chosen_and_the_ends_and_spread_out() -> None:
    rows = [(4 + i / 10, 0.90 + i / 700, 10 - i / 10, 0.1, 0) for i in range(60)]
    given = points(rows)
    shown = spread(given, np.arange(60), [17], count=8)
    assert len(shown) == 8
    assert {0, 17, 59} <= set(shown)
    assert shown == sorted(shown)  # by memory
    assert max(np.diff(shown)) <= 15


def test_what_loses_more_than_a_tenth_is_not_shown_unless_all_do() -> None:
    rows = [(4 + i, 0.61 + i / 10, 10 - i, 0.1, 0) for i in range(4)]
    assert spread(points(rows), np.arange(4), []) == [3]
    assert spread(points(rows[:3]), np.arange(3), []) == [0, 1, 2]
