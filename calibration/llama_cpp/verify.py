"""`kvpareto verify --engine llama.cpp`: a GGUF file run for real, predicted beside measured.

llama.cpp's own account of its buffers is what is measured: it allocates them at the start, and
prints each. The plan's settings are what it is started with; a plan for a GPU needs a llama-server
that has one (`--binary`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...planner.accuracy import predict as accuracy
from ...planner.engines.llama_cpp import LLAMA_CPP
from ...planner.engines.llama_cpp.parts import run_settings
from ...planner.errors import BadInput, MissingDependency
from ...planner.formats.configuration import Configuration
from ...planner.load_model import load_model
from ...planner.models.spec import ModelSpec
from ...planner.placement import Placement
from ...planner.search.placed.questions import requested_point
from ...planner.search.recommend import recommend
from ...planner.search.request import Request
from ...planner.typed_request import typed_gpus
from ...planner.units import parse_bytes
from ...planner.workload import Workload
from ...report.saved_plan import planned_configuration, read_plan
from ..records.receipt_rows import append_receipt
from ..verify.shared_options import SharedVerifyOptions
from .receipt import receipt
from .start import RunReadings, run_binary, run_library

FIRST_TOKEN = 300
"""Token ids below it may be special: prompts are made of those above."""


@dataclass(frozen=True)
class LlamaCppOptions(SharedVerifyOptions):
    """What was typed, with what this engine alone takes."""

    binary: Path | None = None


def verify(options: LlamaCppOptions) -> dict[str, Any]:
    """Run it and judge it; the receipt. Raises BadInput, NothingFits, MissingDependency."""
    request, config, gpu = _asked(options)
    spec = request.spec
    if spec.gguf is None:
        raise BadInput(
            f"{spec.name} is no GGUF file, and llama.cpp runs nothing else",
            f"name the file: kvpareto verify --engine llama.cpp -m {Path(spec.name).name}.gguf",
        )
    if gpu is not None and options.binary is None:
        raise MissingDependency(
            f"the plan is for {gpu}, and the llama.cpp of xllamacpp's wheel runs on processors",
            "give a llama-server that has the GPU: --binary PATH",
        )
    point = requested_point(request, config, request.workload)
    assert point.placement is not None  # llama.cpp places
    readings = _run(options, request, config, point.placement)
    kept = accuracy.predict(spec, config, request.workload.context)
    document = receipt(request, config, point.placement, kept, readings, gpu)
    append_receipt("llama_cpp", document)
    return document


def _asked(options: LlamaCppOptions) -> tuple[Request, Configuration, str | None]:
    """The request, the configuration to run, and the GPU that the plan names."""
    if options.plan is None:
        return (*_typed(options), None)
    plan = read_plan(options.plan)
    if plan.engine != LLAMA_CPP.name:
        raise BadInput(
            f"{options.plan.name} is a plan for {plan.engine}", f"--engine {plan.engine}"
        )
    model = options.model or plan.model_path or plan.model
    spec = load_model(model, offline=options.offline)
    config = planned_configuration(plan, spec, options.plan)
    gpus = typed_gpus(plan.gpu, LLAMA_CPP)
    how = Request(
        spec,
        Workload(plan.context, plan.output, plan.batch),
        LLAMA_CPP,
        plan.budget,
        gpus[0] if gpus else None,
        accept_risk=True,
        ram=plan.ram,
        host_only=plan.host_only,
        gpus=gpus if len(gpus) > 1 else (),
    )
    return how, config, plan.gpu


def _typed(options: LlamaCppOptions) -> tuple[Request, Configuration]:
    if options.model is None or options.budget is None:
        raise BadInput(
            "no plan, and no model with a budget",
            "kvpareto verify --engine llama.cpp -m file.gguf --budget 4GB",
        )
    spec = load_model(options.model, offline=options.offline)
    workload = Workload.parse(options.context, options.output, options.batch, spec.max_context)
    budget = parse_bytes(options.budget)
    request = Request(spec, workload, LLAMA_CPP, budget, accept_risk=True, host_only=True)
    if options.config is not None:
        return request, Configuration.parse(options.config)
    return request, recommend(request).recommended.config


def _run(
    options: LlamaCppOptions, request: Request, config: Configuration, placement: Placement
) -> RunReadings:
    spec, workload = request.spec, request.workload
    run = run_settings(spec, config, workload)
    prompts = _prompts(spec, workload, options)
    predict = max(1, min(workload.output, 32 if options.quick else 128))
    path = Path(spec.extra["path"])
    if options.binary is not None:
        return run_binary(options.binary, placement.flags, prompts, predict)
    return run_library(path, run, prompts, predict, gpu_layers=0)


def _prompts(spec: ModelSpec, workload: Workload, options: LlamaCppOptions) -> Sequence[list[int]]:
    """Prompts of the asked length, of tokens without meaning: seconds do not depend on it."""
    draw = random.Random(options.seed)
    ids = range(min(FIRST_TOKEN, spec.vocab - 1), spec.vocab)
    count = 1 if options.quick else 2
    return [draw.choices(ids, k=workload.context) for _ in range(count)]
