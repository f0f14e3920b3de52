"""Rows of a calibration: what was measured, on which model, with what result."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...planner.errors import one_line
from ...planner.formats.configuration import Configuration
from ...runtime.failures import NotFinite, is_out_of_memory
from ..records.record_file import Environment, Record, now
from ..tasks.scores import Score
from .early_stopping import kind_of


@dataclass(frozen=True)
class ProfileIdentity:
    """What every row of a calibration says alike."""

    model: str
    fingerprint: str
    seed: int
    environment: Environment


@dataclass(frozen=True)
class RowSubject:
    """What is being measured, since when."""

    config: Configuration
    context: int
    task: str
    started: str


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one calibration. `kinds` says what tasks beside the generated ones ask of
    the cache."""

    identity: ProfileIdentity
    kinds: Mapping[str, str]

    def row(self, measured: RowSubject, **values: Any) -> Record:
        """The row of what was measured, which ends now."""
        return Record(
            **{
                "model": self.identity.model,
                "fingerprint": self.identity.fingerprint,
                "config": str(measured.config),
                "task": measured.task,
                "kind": self.kinds.get(measured.task) or kind_of(measured.task),
                "context": measured.context,
                "seed": self.identity.seed,
                "outcome": "ok",
                "environment": self.identity.environment,
                "started": measured.started,
                "ended": now(),
                **values,
            }
        )

    def failure(self, measured: RowSubject, error: Exception) -> Record:
        """The row of memory that ran out, or of a crash."""
        if is_out_of_memory(error):
            return self.row(measured, outcome="out_of_memory", reason=one_line(str(error), 200))
        said = str(error) if isinstance(error, NotFinite) else f"{type(error).__name__}: {error}"
        return self.row(measured, outcome="crashed", reason=one_line(said, 200))


def check_finite(*values: float) -> None:
    """Raise FloatingPointError, which makes the run a crash, where a measurement is no number."""
    if not all(map(math.isfinite, values)):
        raise FloatingPointError("what the model says is not finite")


def score_fields(score: Score) -> dict[str, Any]:
    """The fields of a row that hold a score."""
    return {"items": score.per_item, "score": score.value, "stderr": score.stderr}
