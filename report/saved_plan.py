"""A plan's file, read back: the document, and the question it answered.

The file was perhaps edited, cut short, or made for a model that has moved since: each is one clear
BadInput here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..planner.engines import find_engine
from ..planner.errors import BadConfig, BadInput, one_line
from ..planner.formats.configuration import Configuration
from ..planner.hardware.gpu_set import find_gpus
from ..planner.load_model import load_model
from ..planner.memory.run_dtype import in_dtype
from ..planner.models.protected import check_layers
from ..planner.models.spec import ModelSpec
from ..planner.models.untrusted_json import read_json_object
from ..planner.search.request import Request
from ..planner.serving import Parallel
from ..planner.workload import Workload

MOST_BYTES = 64 * 2**20
_AGAIN = "write it again: kvpareto plan -m MODEL --budget 12GB --save plan.json"


class _Part(BaseModel):
    """A part of a plan's file that is used here; the rest is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)


Bytes = Annotated[int, Field(ge=0, le=2**60)]
Seconds = Annotated[float, Field(ge=0)]
Kept = Annotated[float, Field(ge=0, le=1)]


class Terms(_Part):
    weights: Bytes
    kv: Bytes
    activation: Bytes
    overhead: Bytes
    total: Bytes
    total_low: Bytes
    total_high: Bytes
    allocated_resident: Bytes
    allocated_peak: Bytes


class PromisedRetention(_Part):
    retention: Kept
    low: Kept
    high: Kept


class Overall(PromisedRetention):
    level: float = Field(gt=0, lt=1)
    provenance: str
    task: str | None = None
    tasks: dict[str, PromisedRetention]


class SavedSpeed(_Part):
    kind: str
    ttft_low_s: Seconds
    ttft_high_s: Seconds
    tpot_low_s: Seconds
    tpot_high_s: Seconds


class Planned(_Part):
    """One configuration's predictions, as report.document.point writes them."""

    config: str
    memory: Terms
    accuracy: Overall
    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None
    latency: SavedSpeed | None = None


class GpuMemory(_Part):
    """What of the GPU's memory was kept back; None where the budget was typed."""

    reserve: Bytes | None = None


class Length(_Part):
    """Prompts of one length, and which part of the sequences they are."""

    tokens: int = Field(ge=1, le=2**31)
    part: float = Field(gt=0, le=1)


class PlanFile(_Part):
    """A plan as it was saved: what was asked, and what was promised."""

    schema_version: Literal[1] = Field(alias="schema")
    model: str
    fingerprint: str | None = None
    model_path: str | None = None
    engine: str
    context: int = Field(ge=1, le=2**31)
    output: int = Field(ge=0, le=2**31)
    batch: int = Field(ge=1, le=2**31)
    parameters: int = Field(ge=1)
    budget: Bytes = Field(gt=0)
    gpu: str | None = None
    gpu_memory: GpuMemory | None = None
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    full_logits: bool = False
    objective: str = "accuracy"
    max_loss: Kept | None = None
    task: str | None = None
    accept_risk: bool = False
    ram: Bytes | None = None
    host_only: bool = False
    budget_typed: bool = True
    front: str = ""
    lengths: list[Length] = []
    ttft_target_s: Seconds | None = None
    tpot_target_s: Seconds | None = None
    parallel_asked: str | None = None
    recommended: Planned
    next_up: Planned | None = None
    next_down: Planned | None = None
    frontier: list[Planned] = []

    @property
    def workload(self) -> Workload:
        lengths = tuple((one.tokens, one.part) for one in self.lengths)
        return Workload(self.context, self.output, self.batch, self.full_logits, lengths)


@dataclass(frozen=True)
class SavedPlan:
    """`document` as it stands in the file; `request` asks the same again, None where that is not
    possible, for the reason `why_not`."""

    document: Mapping[str, Any]
    request: Request | None
    why_not: str | None = None


def read_plan(path: Path) -> PlanFile:
    """The plan in `path`. Raises BadInput in one line for anything else."""
    return _plan_of(read_document(path), path)


def read_saved_plan(path: Path, *, offline: bool = True) -> SavedPlan:
    """The plan in `path` with the Request that asks it again. Raises BadInput for a file that is
    no plan."""
    document = read_document(path)
    plan = _plan_of(document, path)
    try:
        return SavedPlan(document, _request(plan, offline))
    except BadInput as error:
        return SavedPlan(document, None, error.message)


def _plan_of(document: Mapping[str, Any], path: Path) -> PlanFile:
    if "max_context" in document and "recommended" not in document:
        raise BadInput(f"{path.name} is the answer of --max-context, not a plan", _AGAIN)
    try:
        plan = PlanFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"{path.name} is not a plan: {place}: {one_line(first['msg'], 80)}", _AGAIN
        ) from None
    with _edited(path):
        for one in (plan.recommended, plan.next_up, plan.next_down, *plan.frontier):
            if one is not None:
                Configuration.parse(one.config)
    return plan


@contextmanager
def _edited(path: Path) -> Iterator[None]:
    """What no plan says was put into the file: the error names it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{path.name} was edited: {error.message}", _AGAIN) from None


def planned_configuration(plan: PlanFile, spec: ModelSpec, path: Path) -> Configuration:
    """What the plan recommends. Raises BadInput, which names the plan, where the model cannot have
    it: the file was edited."""
    config = Configuration.parse(plan.recommended.config)
    with _edited(path):
        check_layers(config, spec)
    return config


def read_document(path: Path) -> dict[str, Any]:
    """The JSON document in `path`. Raises BadInput for anything else."""
    try:
        return read_json_object(path, MOST_BYTES)
    except BadConfig as error:
        raise BadInput(error.message, _AGAIN) from None


def _request(plan: PlanFile, offline: bool) -> Request:
    spec = load_model(plan.model_path or plan.model, offline=offline)
    gpus = find_gpus(plan.gpu) if plan.gpu is not None else ()
    if plan.dtype is not None:
        spec = in_dtype(spec, plan.dtype)
    return Request(
        spec=spec,
        workload=plan.workload,
        engine=find_engine(plan.front or plan.engine),
        budget=plan.budget,
        hardware=gpus[0] if gpus else None,
        gpus=gpus if len(gpus) > 1 else (),
        max_loss=plan.max_loss,
        objective=plan.objective,
        task=plan.task,
        accept_risk=plan.accept_risk,
        reserve=plan.gpu_memory.reserve if plan.gpu_memory is not None else None,
        ram=plan.ram,
        host_only=plan.host_only,
        budget_typed=plan.budget_typed,
        parallel=Parallel.parse(plan.parallel_asked) if plan.parallel_asked else None,
        ttft=plan.ttft_target_s,
        tpot=plan.tpot_target_s,
    )
