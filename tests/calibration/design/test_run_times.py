"""Whether another run ends before the minutes do, and what is left for the fit: by hand."""

from kvpareto.calibration.design.campaign import AGAIN, CHOICES, RECENT, CalibrationPlan, RunTimes

SHORT, LONG, LONGEST = 1024, 2048, 4096
EXPECTED = {SHORT: 10.0, LONG: 20.0, LONGEST: 40.0}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def times(minutes: float | None, **known: float) -> tuple[RunTimes, Clock]:
    clock = Clock()
    plan = CalibrationPlan((SHORT, LONG), (16,), 8, minutes, 0.0, 0, EXPECTED, **known)
    return RunTimes(plan, clock), clock


def seconds_needed(made: RunTimes, clock: Clock, minutes: float, *asked: int, **how: bool) -> float:
    """What is asked takes this long: the latest start that is still allowed."""
    begun = clock.now
    low, high = 0.0, 60 * minutes + 1
    while high - low > 1e-6:
        middle = (low + high) / 2
        clock.now = begun + middle
        low, high = (
            (middle, high) if made.allow(asked, fit=how.get("fit", False)) else (low, middle)
        )
    clock.now = begun
    return round(60 * minutes - low, 3)


def test_before_any_run_the_forecast_says_how_long_one_takes() -> None:
    made, clock = times(2.0)
    assert seconds_needed(made, clock, 2.0, SHORT, LONG) == 30.0
    assert seconds_needed(made, clock, 2.0, 999) == 0.0  # of which nothing is forecast


def test_the_longest_of_the_recent_runs_says_how_long_the_next_takes() -> None:
    made, clock = times(2.0)
    for seconds in (50.0, *[3.0] * (RECENT - 2), 7.0):
        made.add(SHORT, seconds)
    assert seconds_needed(made, clock, 2.0, SHORT) == 50.0
    made.add(SHORT, 4.0)  # the first is no recent one any more
    assert seconds_needed(made, clock, 2.0, SHORT) == 7.0


def test_other_contexts_correct_the_forecast_by_the_slowest_of_them() -> None:
    made, clock = times(5.0)
    made.add(SHORT, 15.0)  # 1.5 times its forecast
    made.add(LONG, 60.0)  # 3 times
    made.add(LONG, 20.0)
    assert seconds_needed(made, clock, 5.0, LONGEST) == 120.0


def test_a_fit_and_the_choices_before_it_are_left_for_the_end() -> None:
    made, clock = times(2.0, end=5.0)
    assert seconds_needed(made, clock, 2.0, SHORT, fit=True) == 15.0
    for seconds in (4.0, *[1.0] * (RECENT - 1)):
        made.chose(seconds)
    assert seconds_needed(made, clock, 2.0, SHORT, fit=True) == 15.0 + CHOICES * 4.0
    made.chose(2.0)  # the first is no recent one any more
    assert seconds_needed(made, clock, 2.0, SHORT, fit=True) == 15.0 + CHOICES * 2.0


def test_what_was_spent_and_what_comes_before_a_run_count() -> None:
    made, clock = times(1.0, spent=30.0)
    assert seconds_needed(made, clock, 1.0, SHORT) == 40.0
    clock.now += 10.0
    assert made.allow((SHORT,), fit=False, beside=AGAIN * 5.0)
    assert not made.allow((SHORT,), fit=False, beside=AGAIN * 5.1)


def test_without_minutes_every_run_is_allowed() -> None:
    made, clock = times(None)
    clock.now = 1e9
    assert made.allow((SHORT,), fit=True)
