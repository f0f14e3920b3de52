"""Configurations that were run stand for what was asked, and for no more: by hand."""

from dataclasses import replace

import pytest

from kvpareto.planner.accuracy.measured_configs import (
    MeasuredConfigurations,
    MeasuredRetention,
    in_order,
    numerically,
)
from kvpareto.planner.accuracy.prediction import Accuracy, TaskAccuracy
from kvpareto.planner.formats.configuration import Configuration

parse = Configuration.parse


def entry(config: str, context: int, **kinds: list[float]) -> dict[str, object]:
    return {"config": config, "context": context, "kinds": kinds}


def test_an_interval_is_z_deviations_wide_and_ends_at_0_and_1() -> None:
    low, high = MeasuredRetention(0.5, 0.1).interval(0.9)
    assert (low, high) == pytest.approx((0.5 - 0.164485, 0.5 + 0.164485), abs=1e-6)
    assert MeasuredRetention(0.95, 0.1).interval(0.9) == pytest.approx((0.785515, 1.0), abs=1e-6)
    assert MeasuredRetention(0.05, 0.1).interval(0.9) == pytest.approx((0.0, 0.214485), abs=1e-6)


@pytest.mark.parametrize(
    ("retention", "sd", "decides"),
    [
        (0.95, 0.02, True),  # half a width of .033, the prediction's is .05
        (0.95, 0.04, False),  # wider, and within
        (0.80, 0.04, False),  # .05 below the interval's end: 1.25 deviations
        (0.72, 0.04, True),  # 3.25 deviations
        (1.00, 0.04, False),
        (1.00, 0.006, True),
    ],
)
def test_a_wide_measurement_decides_only_where_it_is_at_odds(
    retention: float, sd: float, decides: bool
) -> None:
    predicted = TaskAccuracy(0.9, 0.85, 0.96)
    assert MeasuredRetention(retention, sd).decides(predicted, 0.9) is decides


def test_the_nearest_longer_run_up_to_twice_the_context_stands_in() -> None:
    runs = MeasuredConfigurations(
        [
            entry("w16a16-k4v4-g64", 2000, retrieval=[0.8, 0.01]),
            entry("w16a16-k4v4-g64", 1500, retrieval=[0.9, 0.02], reasoning=[1.4, 0.03]),
        ]
    )
    asked = parse("w16a16-k4v4-g64")
    for context, kept in ((1500, 0.9), (1501, 0.8), (2000, 0.8), (1000, 0.9), (750, 0.9)):
        assert runs.of(asked, context)["retrieval"].retention == kept, context
    assert runs.of(asked, 749) == {}
    assert runs.of(asked, 2001) == {}
    assert runs.of(parse("w16a16-k4v4-g32"), 1500) == {}
    assert runs.of(asked, 1500)["reasoning"] == MeasuredRetention(1.0, 0.03)  # chance gains nothing
    assert runs.kinds == {"retrieval", "reasoning"}
    assert runs.longest == 2000
    assert list(runs.configurations()) == [asked]


def test_nothing_that_was_run_says_nothing() -> None:
    none = MeasuredConfigurations([])
    assert none.of(parse("w16a16-k4v4"), 100) == {}
    assert none.longest is None
    assert none.kinds == frozenset()
    assert none.broken(parse("w16a16-k4v4"), 100) is None


def test_kinds_of_one_configuration_and_context_add_up() -> None:
    runs = MeasuredConfigurations(
        [
            entry("w16a16-k4v4+pc64", 100, retrieval=[0.8, 0.01]),
            entry("w16a16-k4v4+pc256", 100, reasoning=[0.7, 0.01]),
        ]
    )
    assert set(runs.of(parse("w16a16-k4v4"), 100)) == {"retrieval", "reasoning"}


def test_what_is_broken_stays_broken_beyond() -> None:
    """Less than half at 1,000 tokens is no more at 5,000; what was measured last there is said."""
    runs = MeasuredConfigurations(
        [
            entry("w16a16-k2v2", 500, retrieval=[0.9, 0.01]),
            entry("w16a16-k2v2", 1000, retrieval=[0.4, 0.01]),
            entry("w16a16-k2v2", 1200, retrieval=[0.3, 0.01]),
        ],
        [{"config": "w16a16-k2v2", "context": 1000}],
    )
    asked = parse("w16a16-k2v2")
    assert runs.of(asked, 5000)["retrieval"].retention == 0.3
    assert runs.of(asked, 1100)["retrieval"].retention == 0.3
    assert runs.of(asked, 250)["retrieval"].retention == 0.9
    assert runs.broken(asked, 999) is None
    assert runs.broken(asked, 1000) == (asked, 1000)


def test_fewer_bits_of_what_is_broken_are_broken_and_more_are_not() -> None:
    runs = MeasuredConfigurations(
        [],
        [{"config": "w8a16-k4v4", "context": 1000}, {"config": "w8a16-k2v4", "context": 3000}],
    )
    for text in ("w8a16-k4v4", "w4a16-k4v4", "w8a16-k2v2", "w4a16-k2v4"):
        assert runs.broken(parse(text), 1000) == (parse("w8a16-k4v4"), 1000), text
    for text in ("w16a16-k4v4", "w8a16-k8v4", "w8a16-k4v8", "w8a16-k4v4-g32", "w8a16-k4v4+rot"):
        assert runs.broken(parse(text), 5000) is None, text
    # its own entry is said before a shorter one of another configuration
    assert runs.broken(parse("w8a16-k2v4"), 3000) == (parse("w8a16-k2v4"), 3000)
    assert runs.broken(parse("w8a16-k2v4"), 2999) == (parse("w8a16-k4v4"), 1000)


def test_runs_that_are_alike_but_for_bits_are_beside_a_format() -> None:
    runs = MeasuredConfigurations(
        [
            entry("w16a16-k4v4", 1000, retrieval=[0.81, 0.01]),
            entry("w16a16-k8v8", 1000, retrieval=[0.99, 0.01]),
            entry("w16a16-k2v8", 1000, retrieval=[0.3, 0.01]),
            entry("w4a16-k4v4", 1000, retrieval=[0.7, 0.01]),
            entry("w16a16-k4v4+smooth", 1000, retrieval=[0.95, 0.01]),
            entry("w16a16-k16v16", 200, retrieval=[1.0, 0.01]),
        ]
    )
    beside = {str(run): less for run, less in runs.ordered(parse("w16a16-k4v5"), 1000)}
    assert beside == {"w16a16-k4v4": True, "w16a16-k8v8": False, "w4a16-k4v4": True}


def test_more_bits_are_promised_no_less_and_fewer_no_more_of_what_was_scored() -> None:
    said, kinds = TaskAccuracy(0.5, 0.2, 0.6), ("retrieval", "reasoning")
    asked = Accuracy(0.5, 0.2, 0.6, 0.9, "calibrated", dict.fromkeys(kinds, said), "retrieval")
    tasks = {"retrieval": TaskAccuracy(0.8, 0.75, 0.85), "reasoning": TaskAccuracy(0.9, 0.1, 1.0)}
    run = Accuracy(0.8, 0.1, 0.85, 0.9, "calibrated", tasks, "retrieval")
    more = in_order(asked, [(run, True)], {"retrieval"}, ("retrieval",))
    assert (more.tasks["retrieval"], more.tasks["reasoning"]) == (tasks["retrieval"], said)
    assert (more.retention, more.low, more.high) == (0.8, 0.75, 0.85)
    low = replace(run, tasks={**tasks, "retrieval": TaskAccuracy(0.3, 0.25, 0.35)})
    fewer = in_order(asked, [(low, False)], {"retrieval"}, kinds)
    assert fewer.tasks["retrieval"] == TaskAccuracy(0.3, 0.2, 0.35)
    assert (fewer.retention, fewer.low, fewer.high, fewer.task) == (0.3, 0.2, 0.35, "retrieval")
    assert in_order(asked, [(low, True)], {"reasoning"}, ("reasoning",)).high == 1.0
    assert in_order(asked, [], {"retrieval"}, kinds) == asked


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("w16a16-k4v4+pc64", "w16a16-k4v4"),
        ("w16a16-k16v16+pc64", "w16a16-k16v16"),
        ("w16a16-k4v4+res64+pc64", "w16a16-k4v4+res64+pc64"),
        ("w16a16-k4v4-kc+pc64", "w16a16-k4v4-kc+pc64"),
    ],
)
def test_a_chunk_counts_where_the_cache_depends_on_it(text: str, kept: str) -> None:
    assert numerically(parse(text)) == parse(kept)
