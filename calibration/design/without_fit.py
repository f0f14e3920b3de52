"""A calibration that ends with nothing for a plan to use: why, and what would give a fit.

The command then fails (exit code 1), so that a script does not go on to a plan that would be the
published fit's. What was measured is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...planner.errors import KVParetoError
from ...planner.formats.configuration import Configuration
from ..measure.early_stopping import is_unquantized
from ..records.record_file import LAYERS, Record

RUNS = 16
"""Of a calibration that is offered where fewer than two runs were asked for."""

SLACK = 1.4
"""Of a time that is forecast anew, what it may be: the same fit took 27 to 37 s on two shared cores
(docs/LOG.md)."""


class EveryRunFailed(KVParetoError):
    """A calibration without one run that went well (exit code 1)."""

    exit_code = 1


class NoFit(KVParetoError):
    """A calibration without one quantized configuration (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True)
class Ended:
    """A calibration of at most `runs` configurations at its end: why that was, and seconds: those
    since its begin, of one configuration as forecast, and of what a fit takes beside runs."""

    reason: str
    runs: int
    contexts: tuple[int, ...]
    seconds: float
    one: float
    beside: float


def check_fitted(folder: Path, records: Sequence[Record], fitted: bool, ended: Ended) -> None:
    """Raise EveryRunFailed where there are runs and all of them failed; NoFit where there is no fit
    for another reason."""
    rows = [record for record in records if record.task != LAYERS]
    if rows and all(record.outcome != "ok" for record in rows):
        raise EveryRunFailed(
            f"all {len(rows)} runs failed, the last with {rows[-1].reason}",
            f"remove the cause; failed runs are not repeated, so move {folder} away first",
        )
    if fitted:
        return
    quantized = [row for row in rows if not is_unquantized(Configuration.parse(row.config))]
    if quantized:
        raise NoFit(
            f"no quantized configuration ran: all {len(quantized)} failed, the last with "
            f"{quantized[-1].reason}",
            f"remove the cause; failed runs are not repeated, so move {folder} away first",
        )
    raise NoFit(
        f"{ended.reason}: no quantized configuration was measured, so there is no fit",
        _more(rows, ended),
    )


def _more(rows: Sequence[Record], ended: Ended) -> str:
    """What to type for a fit, and for all runs: by what was run, before that by the forecast, or by
    the time that rows took where that is longer. Whatever came before the runs comes again."""
    if ended.runs < 2:
        return f"the rows are kept; --resume --runs {RUNS} goes on"
    spans = [
        datetime.fromisoformat(row.ended) - datetime.fromisoformat(row.started) for row in rows
    ]
    took = sum(span.total_seconds() for span in spans)
    beside = max(ended.seconds - took, 0.0) + ended.beside
    one = max(took, ended.one)
    left = 1 if {row.context for row in rows} == set(ended.contexts) else 2
    least = math.ceil(SLACK * (beside + left * one) / 6) / 10
    minutes = max(math.ceil((beside + ended.runs * one) / 60), least)
    return (
        f"the rows are kept; one configuration takes about {math.ceil(one)} s here: --resume "
        f"--minutes {least:g} is enough for a fit, --minutes {minutes:g} for {ended.runs}"
    )
