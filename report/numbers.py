"""Fractions and seconds as a person reads them."""


def percent(value: float) -> str:
    """`0.979` -> `97.9 %`."""
    return f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Seconds or milliseconds with what a prediction resolves; `-` for none."""
    if value is None:
        return "-"
    if value < 0.1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"
