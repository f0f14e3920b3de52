"""The allocator's slack: bytes that torch's caching allocator has reserved and that hold no tensor.

    slack = moving * (bytes that come and go) + beyond * (those beyond the cache) + fixed

An engine gives the three numbers, each with a low and a high end (Engine.slack): fitted to runs, or
measured on this machine. Caches that grow by concatenation leave holes, so slack follows the memory
that comes and goes, not the weights.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..engine import Slack

Number = TypeVar("Number", float, npt.NDArray[np.float64])
"""One configuration's, or an array of many's."""


def slack_terms(slack: Slack, end: int) -> tuple[float, float, float]:
    """The three numbers at an end: 0 expected, 1 low, 2 high."""
    return slack.moving[end], slack.beyond[end], slack.fixed[end]


def slack_bytes(terms: tuple[Number, Number, Number], moving: Number, beyond: Number) -> Number:
    """Slack for the bytes that come and go, and those of them beyond the cache."""
    return terms[0] * moving + terms[1] * beyond + terms[2]
