"""Fractions and seconds as a person reads them."""

from ..planner.units import format_percent, format_time


def percent(value: float, *, upper: bool = False) -> str:
    """`0.979` -> `97.9 %`; see `format_percent`."""
    return format_percent(value, upper=upper)


def seconds(value: float | None, like: float | None = None) -> str:
    """`format_time`; `-` for none."""
    return "-" if value is None else format_time(value, like)
