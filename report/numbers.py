"""Fractions and seconds as a person reads them."""

from ..planner.units import format_percent, format_seconds


def percent(value: float, *, upper: bool = False) -> str:
    """`0.979` -> `97.9 %`; see `format_percent`."""
    return format_percent(value, upper=upper)


def seconds(value: float | None, like: float | None = None) -> str:
    """`format_seconds`; `-` for none."""
    return "-" if value is None else format_seconds(value, like)
