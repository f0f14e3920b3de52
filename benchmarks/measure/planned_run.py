"""A run that a design asks for: what is run, how long it should take, and what its row says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvpareto.planner.engine import Engine
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.workload import Workload


@dataclass(frozen=True)
class PlannedRun:
    """One run. `config` is None where nothing fits, and `fields` then has the `reason`."""

    key: tuple[Any, ...]
    """What tells it from the design's other runs."""
    model: str
    config: Configuration | None
    workload: Workload
    engine: Engine
    seconds: float
    """Expected, warm-up included."""
    budget: int | None = None
    """Bytes that the run is capped at."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What the row has beside the execution: predictions, above all."""

    @property
    def weights(self) -> tuple[str, int]:
        """Runs of the same model and weight bits are made on one build of it."""
        return self.model, 16 if self.config is None else self.config.weight_bits
