"""The rules of a measurement: when a run is hopeless, what a retention's error is at least.

Calibrating (measure/), verifying (verify/) and the summary of what breaks (collapse.py) go by the
same rules, so that their rows and verdicts can be compared:

  - no task is run where the text itself is lost: at two standard errors in the configuration's
    favour it keeps less than HALF of the probability of a token (an excess of ln 2 nats);
  - a task ends after its first FIRST items where the upper end of their 90 % interval is below
    HALF of the unquantized model's score;
  - no task is run on which the unquantized model itself scores below ABLE, or so little in its
    first FIRST items that their upper end is below HOPELESS: its retention would be noise
    divided by noise.
"""

import math

from ...planner.formats.configuration import Configuration
from ..records.record_file import DIVERGENCE, LAYERS, Record

HALF = 0.5
FIRST = 8
ABLE = 0.1
MOST_KEPT = 1 / ABLE
"""No retention is more: no task is run on which the unquantized model scores below ABLE."""
HOPELESS = 0.3
KINDS = {"variables": "reasoning", "arithmetic": "reasoning"}
"""What tasks ask of the cache; the others are retrieval."""


def is_unquantized(config: Configuration) -> bool:
    return config.weight_bits == 16 and not config.quantizes_kv


def kind_of(task: str) -> str:
    """What a task of ours asks of the cache: one of rows.KINDS."""
    return "perplexity" if task in (DIVERGENCE, LAYERS) else KINDS.get(task, "retrieval")


def is_lost(row: Record | None) -> bool:
    """Whether the divergence says that the text itself is lost.

    The error of log retention is retention_sd / retention. Where less is kept than a float64
    holds, retention and its error are both 0: nothing is left.
    """
    if row is None or row.retention is None or row.retention_sd is None:
        return False
    if row.retention <= 0:
        return True
    return math.log(row.retention) + 2 * row.retention_sd / row.retention < math.log(HALF)


def retention_error(stderr: float | None, count: int) -> float | None:
    """The ratio's error, and at least 1 / (n + 2): where n items show no difference, the share
    that differs is known no better than that (uniform prior). None where there is no ratio."""
    return None if stderr is None else max(stderr, 1 / (count + 2))
