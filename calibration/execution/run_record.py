"""What one run of a configuration left behind: an Execution, whether it went well or not."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from ...planner.accuracy.calibrations import fingerprint
from ...planner.engine import Engine
from ...planner.errors import BadInput, NothingFits, one_line
from ...planner.formats.configuration import Configuration
from ...planner.models.spec import ModelSpec
from ...planner.workload import Workload
from ...runtime.failures import NotFinite, is_out_of_memory
from ..records.environment import environment
from ..records.record_file import Environment, now
from .memory_cap import allocator_settings

Phase = Literal["load", "cache", "prefill", "decode"]
Term = Literal["weights", "kv", "activation", "overhead"]
TERMS: dict[Phase, Term] = {
    "load": "weights",
    "cache": "kv",
    "prefill": "activation",
    "decode": "activation",
}
"""What runs out when memory does in a phase."""


class Warmup(StrEnum):
    """What is run before the time to the first token is taken: the whole prompt, a prompt of a
    few chunks, or nothing."""

    FULL = "full"
    SHORT = "short"
    NONE = "none"


class Execution(BaseModel):
    """One run. Bytes and seconds; None: not measured, or not there (no GPU)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )

    schema_version: Literal[1] = Field(default=1, alias="schema")
    model: str
    fingerprint: str
    config: str
    engine: str
    device: Literal["cuda", "cpu"]
    context: int
    output: int
    batch: int
    random_weights: bool
    outcome: Literal["ok", "out_of_memory", "crashed", "refused"]
    phase: Phase | None = None
    """Where it failed."""
    term: Term | None = None
    """What ran out of memory."""
    reason: str | None = None
    """Of a failure, in one line."""
    budget: int | None = None
    allowed: int | None = None
    """What torch's allocator was last held to."""
    weights: int | None = None
    kv: int | None = None
    """Sizes of the real tensors."""
    allocated_resident: int | None = None
    """The allocator's bytes after prefill."""
    allocated_peak: int | None = None
    """Its high-water mark, in the phase `peak_phase`."""
    peak_phase: Literal["load", "prefill", "decode"] | None = None
    peaks: dict[str, int] = Field(default_factory=dict)
    """The high-water mark of each phase."""
    workspace: int | None = None
    """Of the allocator's bytes: workspaces of cuBLAS, counted by taking them away at the end."""
    reserved_peak: int | None = None
    context_bytes: int | None = None
    """Device memory outside the allocator, after the run: CUDA context, libraries, graphs."""
    context_before: int | None = None
    """The same before the run."""
    device_used: int | None = None
    """context_bytes + reserved_peak: the most that the driver can have counted."""
    counted: int | None = None
    """On a CPU: tensors' bytes and the planner's activation."""
    ttft_s: float | None = None
    ttft_cold_s: float | None = None
    """The first run of the whole prompt, with compiling, capturing and loading of libraries."""
    tpot_s: float | None = None
    """Median."""
    tpot_p95_s: float | None = None
    steps: int = 0
    """Decode steps that the two times a token are of."""
    load_s: float | None = None
    warmup: Warmup
    why_eager: str | None = None
    """Why passes ran without CUDA graphs; None where they were captured."""
    allocator: str | None = None
    """Settings of torch's allocator."""
    environment: Environment
    started: str
    ended: str


@dataclass(frozen=True)
class RunRequest:
    """What is to be run. `device`: "cuda" or "cpu"."""

    spec: ModelSpec
    config: Configuration
    workload: Workload
    engine: Engine
    device: str
    random_weights: bool
    budget: int | None
    warmup: Warmup

    def record(self, started: str, values: dict[str, Any]) -> Execution:
        """The run's record; `values` are the fields that were measured, and the outcome."""
        return Execution(
            **{
                "model": self.spec.name,
                "fingerprint": fingerprint(self.spec),
                "config": str(self.config),
                "engine": self.engine.name,
                "device": self.device,
                "context": self.workload.context,
                "output": self.workload.output,
                "batch": self.workload.batch,
                "random_weights": self.random_weights,
                "budget": self.budget,
                "warmup": self.warmup,
                "allocator": allocator_settings() if self.device == "cuda" else None,
                "environment": environment(self.device),
                "started": started,
                "ended": now(),
                **values,
            }
        )


def failure(error: BaseException, phase: Phase) -> dict[str, Any]:
    """The fields that say why and where a run failed."""
    fields: dict[str, Any] = {"phase": phase, "reason": one_line(str(error), 300)}
    if isinstance(error, BadInput):
        return fields | {"outcome": "refused"}
    if isinstance(error, NotFinite):
        return fields | {"outcome": "crashed"}
    cause = error.__cause__ if isinstance(error, NothingFits) and error.__cause__ else error
    outside = not isinstance(cause, torch.OutOfMemoryError) and is_outside_allocator(cause)
    if outside:
        fields["reason"] = one_line(str(cause), 300)
    if outside or is_out_of_memory(error):
        term = "overhead" if outside else TERMS[phase]
        return fields | {"outcome": "out_of_memory", "term": term}
    reason = one_line(f"{type(error).__name__}: {error}", 300)
    return fields | {"outcome": "crashed", "reason": reason}


def is_outside_allocator(error: BaseException) -> bool:
    """Whether a library or the driver ran out of memory: not torch's allocator, but as fatal."""
    text = str(error).lower().replace("_", " ")
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "alloc failed" in text or "memoryallocation" in text
    )
