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

Bytes = TypeVar("Bytes", float, npt.NDArray[np.float64])


def slack_terms(slack: Slack, end: int) -> tuple[float, float, float]:
    """The three numbers at an end: 0 expected, 1 low, 2 high."""
    return slack.moving[end], slack.beyond[end], slack.fixed[end]


def slack_bytes(
    terms: tuple[Bytes, Bytes, Bytes] | npt.NDArray[np.float64],
    moving: int | npt.NDArray[np.int64],
    beyond: int | npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Slack for the bytes that come and go, and those of them beyond the cache; whole bytes.

    Numbers or arrays, which broadcast.
    """
    exact = terms[0] * moving + terms[1] * beyond + terms[2]
    return np.asarray(exact).astype(np.int64)
