"""Single values of a calibration's files: what is within its limits, to the limit itself."""

from typing import Any

import numpy as np
import pytest

from kvpareto.planner.accuracy.calibration_files.values import (
    LONGEST_TEXT,
    DamagedCalibration,
    check_finite,
    check_text,
    count,
    entries,
    listed,
    number,
)
from kvpareto.planner.accuracy.interval import inside


def test_numbers_reach_their_ends_and_no_further() -> None:
    for value in (-1, 0, 2.5, 3):
        assert number(value, -1, 3, "x") == value
    for wrong in (-1.01, 3.01, True, "1", None, float("nan")):
        with pytest.raises(DamagedCalibration, match=r"x is .*not a number within -1 to 3"):
            number(wrong, -1, 3, "x")


def test_counts_are_whole() -> None:
    assert count(3, 0, 3, "n") == 3
    for wrong in (4, -1, 2.0, "2", True):
        with pytest.raises(DamagedCalibration, match="n is"):
            count(wrong, 0, 3, "n")


def test_lists_have_their_length_and_texts_one_printable_line() -> None:
    assert entries((1, 2), 2, "e") == (1, 2)
    for wrong in ([1], [1, 2, 3], "ab", None):
        with pytest.raises(DamagedCalibration, match="e does not have 2 entries"):
            entries(wrong, 2, "e")
    assert listed({"a": [1]}, "a") == [1]
    assert listed({}, "a") == []
    with pytest.raises(DamagedCalibration, match="a is no list"):
        listed({"a": {}}, "a")
    check_text("x" * LONGEST_TEXT, "t")
    for text in ("x" * (LONGEST_TEXT + 1), "a\nb", "\x1b[1m", 3):
        with pytest.raises(DamagedCalibration, match="t is no printable text"):
            check_text(text, "t")


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), [1.0, [-float("inf")]], {"a": {"b": (float("nan"),)}}],
    ids=["nan", "inf", "list", "object"],
)
def test_no_number_anywhere_is_infinite(value: Any) -> None:
    check_finite({"a": [1, 2.0, {"b": "inf"}], "c": True})
    with pytest.raises(DamagedCalibration, match=r"is (nan|inf|-inf)"):
        check_finite(value)
    with pytest.raises(DamagedCalibration, match=r"^here\.a is nan"):
        check_finite({"a": float("nan")}, "here")


def test_a_score_is_inside_where_its_error_and_the_interval_meet() -> None:
    """0.9 with an interval of 0.8 to 0.93 and an error of 1.645 x 0.02 = 0.0329: below 0.9 the two
    make 0.10527 and above 0.04453 in quadrature, and half a percent is a tie."""
    predicted, low, high, sd = (np.array([x]) for x in (0.9, 0.8, 0.93, 0.02))
    ends = {0.7898: True, 0.7896: False, 0.9494: True, 0.9496: False}
    for score, expected in ends.items():
        assert inside(np.array([score]), predicted, low, high, sd).item() is expected, score
