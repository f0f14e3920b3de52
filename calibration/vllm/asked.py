"""What `verify --engine vllm` is to start: from a plan's file, or from what was typed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...planner.accuracy.calibrations import fingerprint
from ...planner.engines.vllm import asked_settings
from ...planner.engines.vllm.settings import ServeSettings
from ...planner.engines.vllm.sizing import size_layout
from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.hardware.gpus import Hardware
from ...planner.load_model import load_model
from ...planner.models.spec import ModelSpec
from ...planner.placement import Machine
from ...planner.serving import Parallel
from ...planner.units import parse_bytes
from ...planner.workload import Workload
from ...report.saved_plan import planned_configuration, read_document, read_plan
from ..verify.shared_options import SharedVerifyOptions
from .start import engine_arguments

PLUGIN_CACHE = "w16a16-kint4_per_token_headvint4_per_token_head"
"""What the plugin is verified with where no configuration is named."""


@dataclass(frozen=True)
class VllmOptions(SharedVerifyOptions):
    """What was typed, with what this engine alone takes."""

    random_weights: bool = False
    tasks: str | None = None
    items: int | None = None
    plugin: bool = False


@dataclass(frozen=True)
class Asked:
    """`source`: what vLLM loads. `plan_gpu`: the card that a plan's numbers are for; `hardware`:
    the one that is here."""

    spec: ModelSpec
    source: str
    settings: ServeSettings
    config: Configuration
    workload: Workload
    hardware: Hardware
    plan_gpu: str | None
    random_weights: bool

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.spec)


def asked_of(options: VllmOptions, hardware: Hardware) -> Asked:
    """What to start on `hardware`. Raises BadInput."""
    if options.plan is not None:
        return _from_plan(options, options.plan, hardware)
    if options.model is None:
        raise BadInput(
            "no plan, and no model", "kvpareto verify --engine vllm -m MODEL --context 16k"
        )
    spec = load_model(options.model, offline=options.offline)
    workload = Workload.parse(options.context, options.output, options.batch, spec.max_context)
    usual = PLUGIN_CACHE if options.plugin else None
    written = usual if options.config is None else options.config
    config = Configuration() if written is None else Configuration.parse(written)
    settings = _typed_settings(options, spec, config, workload, hardware)
    return Asked(
        spec, options.model, settings, config, workload, hardware, None, options.random_weights
    )


def _typed_settings(
    options: VllmOptions,
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    hardware: Hardware,
) -> ServeSettings:
    """The engine's usual settings, with room for the prompt and the answer of every user; within
    a budget those of its plan."""
    settings = asked_settings.settings_of(
        spec, config, workload, (hardware,), plugin=options.plugin
    )
    if options.budget is None:
        return settings
    budget = parse_bytes(options.budget)
    if budget > hardware.memory_bytes:
        raise BadInput(
            f"{options.budget} is more than the {hardware.name} has", "give a smaller --budget"
        )
    machine = Machine((hardware,), (budget,), None)
    return size_layout(spec, settings, Parallel(), workload, machine).settings


def _from_plan(options: VllmOptions, path: Path, hardware: Hardware) -> Asked:
    plan = read_plan(path)
    if plan.engine != "vllm":
        raise BadInput(f"{path.name} is a plan for {plan.engine}", f"--engine {plan.engine}")
    try:
        settings = settings_of(_flags(read_document(path)["recommended"]))
    except (KeyError, TypeError, ValueError):
        raise BadInput(
            f"{path.name} is not a plan for vLLM",
            "write one: kvpareto plan --engine vllm -m MODEL --gpu H100 --save plan.json",
        ) from None
    workload = plan.workload
    source = options.model or plan.model_path or plan.model
    spec = load_model(source, offline=options.offline)
    config = planned_configuration(plan, spec, path)
    # Weights that are a checkpoint of their own have no flag; the configuration names them.
    settings = replace(settings, quantization=asked_settings.weight_name(spec, config))
    if settings.data_parallel > 1:
        raise BadInput(
            f"{path.name} is for {settings.data_parallel} replicas, and verify starts one",
            "plan one: kvpareto plan --engine vllm --parallel tp2",
        )
    return Asked(
        spec,
        source,
        settings,
        config,
        workload,
        hardware,
        plan.gpu,
        options.random_weights,
    )


_RENAMED = {
    "enable_expert_parallel": "expert_parallel",
    "enable_prefix_caching": "prefix_caching",
}


def _text(value: object) -> str:
    """A flag's value as it is typed; nothing for one that is there or not."""
    return "" if value is True else str(value)


def _flags(point: Mapping[str, Any]) -> Mapping[str, str]:
    """The flags of a plan's point, wherever they are written."""
    for name in ("serving", "placement"):
        part = point.get(name)
        if isinstance(part, Mapping) and isinstance(part.get("flags"), Mapping):
            return {k: _text(v) for k, v in part["flags"].items() if k != "model"}
    raise KeyError("flags")


def settings_of(flags: Mapping[str, str]) -> ServeSettings:
    """Flags read back. Raises BadInput for those that the planner does not know."""
    values = engine_arguments(flags)
    known = set(ServeSettings.__dataclass_fields__)
    renamed = {
        _RENAMED.get(name)
        or (name.removesuffix("_size") if name.endswith("_parallel_size") else name): value
        for name, value in values.items()
    }
    if unknown := sorted(set(renamed) - known):
        raise BadInput(f"flags that are not planned for vLLM: {', '.join(unknown)}", "plan again")
    return ServeSettings(**renamed)
