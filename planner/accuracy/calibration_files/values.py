"""Single values of a calibration's files: within their limits, or the file is damaged.

check.py reads whole files by them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LARGEST_LOG = 50.0
"""Of a fitted logarithm; the largest of the shipped fit is 8.5."""
WIDEST = 20.0
"""Of a z, a shift or a standard deviation; calibrations write 8 at most."""
MOST_KEPT = 10.0
"""Of a measured retention: see calibration/measure/early_stopping.py."""
MOST_TOKENS = 2**31
LONGEST_TEXT = 1000


class DamagedCalibration(ValueError):
    """What is wrong with a profile, in a few words that begin with the field."""

    @property
    def words(self) -> str:
        return f"is damaged: {self}"


class OtherVersion(DamagedCalibration):
    """A profile that another version of this package wrote."""

    @property
    def words(self) -> str:
        return f"was written by another version: its {self}"


def check_finite(value: Any, where: str = "") -> None:
    """Raise DamagedCalibration where a number anywhere in JSON values is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise DamagedCalibration(f"{where or 'a number'} is {value}")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_finite(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            check_finite(inner, where)


def listed(meta: Mapping[str, Any], name: str) -> list[Any]:
    listed = meta.get(name, [])
    if not isinstance(listed, list):
        raise DamagedCalibration(f"{name} is no list")
    return listed


def check_text(value: Any, where: str) -> None:
    """Raise DamagedCalibration for what cannot be shown on a line of a terminal."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_TEXT:
        raise DamagedCalibration(f"{where} is no printable text")


def number(value: Any, low: float, high: float, where: str) -> float:
    """A number within `low` to `high`. Raises DamagedCalibration."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DamagedCalibration(
            f"{where} is {value!r:.40}, not a number within {low:g} to {high:g}"
        )
    return float(value)


def count(value: Any, low: int, high: int, where: str) -> int:
    """A whole number within `low` to `high`. Raises DamagedCalibration."""
    if not isinstance(value, int):
        raise DamagedCalibration(f"{where} is {value!r:.40}, not a whole number")
    return int(number(value, low, high, where))


def entries(values: Any, length: int, where: str) -> Sequence[Any]:
    if not isinstance(values, list | tuple) or len(values) != length:
        raise DamagedCalibration(f"{where} does not have {length} entries")
    return values
