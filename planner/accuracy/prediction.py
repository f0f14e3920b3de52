"""What a prediction of accuracy is: retention by kind of task, its interval, its provenance.

`retention` is score / score of the unquantized model on the same items.
"""

from collections.abc import Mapping

from ..light_dataclass import dataclass
from .formula import Floats


@dataclass(frozen=True, slots=True)
class TaskAccuracy:
    """Retention on one kind of task."""

    retention: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Predicted retention, the interval that holds it with probability `level`, and on what
    it rests. `notes` say where the prediction goes beyond what was measured.

    `retention`, `low` and `high` are those of the weakest generated kind of task, or of the kind
    that was asked for; `task` names it. `tasks` has every kind.
    """

    retention: float
    low: float
    high: float
    level: float
    provenance: str
    tasks: Mapping[str, TaskAccuracy]
    task: str
    notes: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    """Where the model, or such a configuration, was seen to fail at a context no longer."""

    @property
    def low_task(self) -> str:
        """The kind whose lower end `low` is: the weakest, or one that is less certain."""
        if self.tasks[self.task].low == self.low:
            return self.task
        return next((kind for kind, x in self.tasks.items() if x.low == self.low), self.task)

    def less_certain(self, kept: float) -> tuple[str, ...]:
        """Kinds of task outside the promise that may keep less than `kept` and than it promises."""
        return tuple(kind for kind, x in self.tasks.items() if x.low < min(kept, self.low))


@dataclass(frozen=True, slots=True)
class AccuracyGrid:
    """Retention of the weakest kind, and its interval, for W weight formats x F cache formats:
    [W, F]."""

    retention: Floats
    low: Floats
    high: Floats
    level: float
    provenance: str
