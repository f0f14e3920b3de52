"""Kinds of tasks, floors of guessing, and where noise sits: by hand."""

from math import log
from statistics import NormalDist

import numpy as np
import pytest

from kvpareto.planner.accuracy import named_noise
from kvpareto.planner.accuracy.interval import LEVEL, NORMAL_Z
from kvpareto.planner.accuracy.retention import (
    OutlierLayers,
    cache_retention,
    protected_shares,
    weight_retention,
)
from kvpareto.planner.accuracy.task_kinds import (
    GENERATED_KINDS,
    MOST_FLOOR,
    OVERALL_KINDS,
    TASKS,
    USUAL_BASELINE,
    ScoredTask,
    headline_kinds,
    parse_task,
    task_group,
)
from kvpareto.planner.errors import BadInput


def test_kinds_are_typed_with_dashes_in_any_case() -> None:
    assert parse_task(" Long-Reasoning ") == "long_reasoning"
    assert [parse_task(name) for name in TASKS] == [name.replace("-", "_") for name in TASKS]
    with pytest.raises(BadInput, match="unknown kind of task: 'chess'"):
        parse_task("chess")


def test_the_headline_is_what_was_asked_or_measured_whole() -> None:
    assert headline_kinds((), "reading") == ("reading",)
    assert headline_kinds(()) == GENERATED_KINDS
    assert headline_kinds(OVERALL_KINDS[:1]) == GENERATED_KINDS
    assert set(headline_kinds((*OVERALL_KINDS, "reading"))) == set(OVERALL_KINDS)


def test_guessing_leaves_its_share_of_the_baseline() -> None:
    assert ScoredTask("x", 0.25, 0.5).floor == min(0.5, MOST_FLOOR)
    assert ScoredTask("x", 0.1, 0.5).floor == pytest.approx(0.2)
    assert ScoredTask("x", 0.9, 0.1).floor == MOST_FLOOR
    assert ScoredTask("x", 0.25).floor == 0.0
    assert ScoredTask("x").difficulty == 0.0
    assert ScoredTask("x", 0, 0.5).difficulty == pytest.approx(log(USUAL_BASELINE / 0.5))
    assert ScoredTask("x", 0, 0.01).difficulty == pytest.approx(log(USUAL_BASELINE / 0.05))


@pytest.mark.parametrize(
    ("task", "group"),
    [
        ("LongBench hotpotqa e", "longbench hotpotqa"),
        ("longbench_qasper", "longbench qasper"),
        ("GSM8K 8-shot", "gsm8k"),
        ("needle", "needle"),
        ("", ""),
    ],
)
def test_a_task_is_known_by_what_its_name_begins_with(task: str, group: str) -> None:
    assert task_group(task) == group


def test_retention_is_one_without_noise_and_half_at_one() -> None:
    noise = np.array([0.0, 1.0, 2.0])
    assert cache_retention(noise, 3.0).tolist() == [1.0, 0.5, 1 / 9]
    assert weight_retention(noise).tolist() == [1.0, 0.5, 1 / 3]


def test_noise_of_protected_layers() -> None:
    """Of 10 layers, 2 and 3 protected, a layer that is not there left out: a fifth is plain."""
    measured = OutlierLayers(keys=(0.1,) * 10, values=(0.05,) * 9 + (0.55,))
    shares = protected_shares(measured, 10, {2, 3, 99})
    assert (shares.plain, shares.outlier, shares.value) == pytest.approx((0.2, 0.2, 0.1))
    assert (
        protected_shares(OutlierLayers(keys=(0.6,) * 2, values=(0.1,) * 2), 2, {0, 1}).outlier == 1
    )
    # 0.8 of the outliers' noise lies in layers 0 and 2, of which one is protected
    named = protected_shares(OutlierLayers((0, 2), 0.8), 10, {2, 3})
    assert (named.plain, named.outlier, named.value) == pytest.approx((0.2, 0.44, 0.2))
    # nothing known: 0.35 in the first layer, 0.25 in the last, the rest evenly
    for layers, outlier in (({0}, 0.35 + 0.04), ({9}, 0.25 + 0.04), ({4}, 0.04), (set(), 0.0)):
        assert protected_shares(OutlierLayers(), 10, layers).outlier == pytest.approx(outlier)


def test_a_mix_is_worth_4_bits_where_awq_is_and_8_where_int8_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"A": named_noise._AWQ_KL, "B": named_noise._INT8_KL, "C": 2 * named_noise._AWQ_KL}
    monkeypatch.setattr(named_noise, "_divergences", lambda: known)
    assert named_noise.equivalent_bits("A") == 4.0
    assert named_noise.equivalent_bits("B") == pytest.approx(8.0)
    assert named_noise.equivalent_bits("C") < 4.0
    assert named_noise.equivalent_bits("BF16") == 16.0
    with pytest.raises(KeyError):
        named_noise.equivalent_bits("Q9_Z")


def test_the_normal_half_width_is_the_levels() -> None:
    assert NormalDist().inv_cdf(0.5 + LEVEL / 2) == pytest.approx(NORMAL_Z, abs=2e-4)
