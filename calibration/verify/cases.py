"""What is to be verified, and the plan's file that asks it (what is typed instead: typed_cases.py).

A plan's file was perhaps edited, cut short, or made for a model that has changed since: each is
one clear BadInput here, before anything is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...planner.accuracy import predict as accuracy
from ...planner.accuracy.calibrations import fingerprint
from ...planner.engine import Engine
from ...planner.engines import find_engine
from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.hardware.gpus import Hardware
from ...planner.latency import predict as latency
from ...planner.load_model import load_model
from ...planner.memory import estimate as memory
from ...planner.memory.run_dtype import in_dtype
from ...planner.models.spec import ModelSpec
from ...planner.search.request import Request
from ...planner.workload import Workload
from ...report.document_parts import point
from ...report.saved_plan import PlanFile, Planned, planned_configuration, read_plan


@dataclass(frozen=True)
class VerificationCase:
    """`source` is what is loaded; `planned` what was promised; `request` what a corrected plan
    would be made from; `plan_gpu` the GPU that the promised seconds are for."""

    source: str
    request: Request
    config: Configuration
    planned: Planned
    plan_gpu: str | None
    frontier: tuple[Planned, ...] = ()

    @property
    def spec(self) -> ModelSpec:
        return self.request.spec

    def at(self, planned: Planned) -> "VerificationCase":
        """The same question about another point, under the upper end of its own memory."""
        return replace(
            self,
            config=Configuration.parse(planned.config),
            planned=planned,
            request=replace(self.request, budget=planned.memory.total_high),
        )


def from_plan(path: Path, model: str | None, offline: bool) -> VerificationCase:
    """The question a plan's file asks. `model` says where the weights are, if not under the name
    that was planned for."""
    plan = read_plan(path)
    source = model or plan.model_path or plan.model
    if model is None and plan.model_path is not None and not Path(plan.model_path).exists():
        raise BadInput(
            f"the plan was made from {plan.model_path}, which is not there any more",
            "--model says where its weights are",
        )
    try:
        spec = load_model(source, offline=offline)
    except BadInput as error:
        if model is not None:
            raise
        hint = "--model says where its weights are"
        raise BadInput(f"the plan's model is not here: {error.message}", hint) from None
    if plan.dtype is not None:
        spec = in_dtype(spec, plan.dtype)
    engine = find_engine(plan.engine)
    workload = Workload(plan.context, plan.output, plan.batch)
    config = planned_configuration(plan, spec, path)
    _check_still(plan, spec, config, workload, engine)
    request = Request(
        spec, workload, engine, plan.budget, objective=plan.objective, max_loss=plan.max_loss,
        task=plan.task, accept_risk=plan.accept_risk,
    )  # fmt: skip
    return VerificationCase(
        source, request, config, plan.recommended, plan.gpu, tuple(plan.frontier)
    )


def predict(request: Request, config: Configuration, hardware: Hardware | None) -> Planned:
    """What the planner says of a configuration now, on `hardware`."""
    workload, engine = request.workload, request.engine
    spec = engine.dequantized(request.spec)
    planned_point = point(
        config,
        memory.estimate(spec, config, workload, engine, hardware),
        accuracy.predict(spec, config, workload.context, task=request.task),
        latency.predict(spec, config, workload, engine, hardware),
    )
    return planned_of(planned_point)


def planned_of(document: Mapping[str, Any]) -> Planned:
    """A point of report.document as what is promised."""
    return Planned.model_validate({name: document[name] for name in Planned.model_fields})


def _check_still(
    plan: PlanFile, spec: ModelSpec, config: Configuration, workload: Workload, engine: Engine
) -> None:
    """Raise BadInput where the model is not the one that the plan was made for."""
    same = plan.parameters == spec.parameters
    known = plan.fingerprint is not None and plan.fingerprint == fingerprint(spec)
    if plan.fingerprint is not None:
        same = same and known
    if same:
        now = memory.estimate(spec, config, workload, engine, None)
        promised = plan.recommended.memory
        same = (now.weights, now.kv) == (promised.weights, promised.kv)
    if not same and known:  # the model is the same: the file was edited, or counts as others did
        raise BadInput(
            f"the plan's figures are not those of {config} for {plan.model}: it was edited, or "
            "written by another version",
            "plan again for this model",
        )
    if not same:
        raise BadInput(
            f"the plan was made for {plan.model} with {plan.parameters:,} parameters and "
            f"{plan.recommended.memory.weights:,} bytes of weights; {spec.name} is not that model, "
            "or was changed since",
            "plan again for this model",
        )
