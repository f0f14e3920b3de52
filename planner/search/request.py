"""What a person asks of the planner."""

from dataclasses import dataclass

from ..engine import Engine
from ..errors import BadInput
from ..hardware.gpus import Hardware
from ..models.spec import ModelSpec
from ..workload import Workload

OBJECTIVES = ("accuracy", "latency", "memory")
DEFAULT_LOSS = 0.05
"""Accepted by the objectives latency and memory, which would else end at formats that destroy
the model."""


@dataclass(frozen=True)
class Request:
    """A model, a workload, an engine and a `budget` in bytes; `max_loss` as a fraction of the
    unquantized score. `reserve`: bytes of the GPU's memory that are not in the budget; None where
    the budget was typed. Raises BadInput for an unknown objective."""

    spec: ModelSpec
    workload: Workload
    engine: Engine
    budget: int
    hardware: Hardware | None = None
    max_loss: float | None = None
    objective: str = "accuracy"
    reserve: int | None = None

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise BadInput(
                f"unknown objective: {self.objective!r}", f"choose {', '.join(OBJECTIVES)}"
            )
        if self.budget < 1:
            raise BadInput(
                f"a budget of {self.budget} bytes holds nothing", "say how much there is"
            )

    @property
    def accepted_loss(self) -> float | None:
        """The largest loss accepted; None where accuracy itself is the objective."""
        if self.max_loss is None and self.objective != "accuracy":
            return DEFAULT_LOSS
        return self.max_loss
