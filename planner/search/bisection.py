"""The last number for which something holds that holds for all before it."""

from collections.abc import Callable


def last(holds: Callable[[int], bool], most: int) -> int:
    """The last of 1 .. `most` for which `holds` does, which holds for none after it; 0: none."""
    if holds(most):
        return most
    if most == 1 or not holds(1):  # a search for nothing would ask ten times more
        return 0
    return _between(holds, 1, most)


def last_near(holds: Callable[[int], bool], most: int) -> int:
    """As last(), asking first near `most`, which may be 0."""
    high, back = most, 1
    if not most or holds(most):
        return most
    while high > 1:
        low = max(1, most - back)
        if holds(low):
            return _between(holds, low, high)
        high, back = low, 2 * back
    return 0


def _between(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last from `low`, for which it holds, to before `high`, for which it does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
