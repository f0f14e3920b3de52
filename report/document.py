"""Results as JSON documents, schema 1: what `--json` prints, `--save` writes and tables show.

Bytes are ints, times seconds, fractions between 0 and 1; what is not known is null.
"""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..planner.accuracy.calibrations import fingerprint
from ..planner.accuracy.prediction import Accuracy
from ..planner.engine import Engine
from ..planner.engines.kvpareto import KVPARETO
from ..planner.formats.configuration import Configuration
from ..planner.hardware.gpu_set import gpus_text
from ..planner.hardware.gpus import Hardware
from ..planner.latency.predict import Latency
from ..planner.local_model import loadable, without_weights
from ..planner.memory.estimate import MemoryEstimate
from ..planner.models.spec import ModelSpec
from ..planner.placement import Placement
from ..planner.search.evaluate import REFERENCE_GPU
from ..planner.search.gpu_memory import gpu_notes
from ..planner.search.notes import ends_at_training
from ..planner.search.recommend import Plan, Point, Request
from ..planner.units import exact_bytes, format_bytes
from ..planner.workload import Workload, default_output, lengths_text
from .document_parts import heading, placed, point, warnings_of
from .elsewhere import elsewhere

if TYPE_CHECKING:
    from ..planner.search.max_context import MaxContext


VERIFIED = ("vllm",)
"""Servers that `verify` starts."""


def estimate_document(
    spec: ModelSpec,
    config: Configuration,
    engine: Engine,
    workload: Workload,
    memory: MemoryEstimate,
    accuracy: Accuracy,
    latency: Latency | None,
    hardware: Hardware | None = None,
) -> dict[str, Any]:
    """One configuration under one workload: memory, accuracy, latency, and what to be told."""
    return {
        **heading(spec, engine, workload),
        **point(config, memory, accuracy, latency),
        "warnings": warnings_of(spec, config, engine, workload, memory, accuracy, hardware),
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """A recommendation, the frontier it stands on, and the words about both."""
    request = plan.request
    return {
        **_question(request),
        "fits": plan.fits,
        "safe": plan.safe,
        "recommended": _planned(request, plan.recommended),
        "reasons": list(plan.reasons),
        "steps": list(plan.steps),
        "next_up": _planned(request, plan.next_up) if plan.next_up else None,
        "next_down": _planned(request, plan.next_down) if plan.next_down else None,
        "frontier": [_planned(request, point) for point in plan.frontier],
        "shown": [str(point.config) for point in plan.shown],
        "relative_latency": _relative_latency(plan),
        "pace": _relative_latency(plan),  # its name before this schema; gone with the next
        "considered": plan.considered,
        "fitting": plan.fitting,
        "runnable": KVPARETO.cannot_run(request.spec, request.hardware) is None,
        **_placing(request),
        "commands": commands_of(request, plan.recommended),
        **_against_own(plan),
        "elsewhere": elsewhere(request, plan.recommended.config),
        "warnings": list(plan.warnings),
    }


def _typed_budget(budget: int, needed: int) -> str:
    """The budget in few digits where it still holds what is needed: a whole GPU's has nine."""
    rounded = budget // 10**7 * 10**7
    return exact_bytes(rounded if rounded >= needed else budget)


def _to_get(placement: Placement, size: str) -> str:
    """The file in words, and where it is; where none is known, that, and a search."""
    if not placement.file_address:
        return f"{placement.file}, {size}"
    unknown = "" if placement.file_repository else " (no file is known here; search)"
    return f"{placement.file}, {size}{unknown}: {placement.file_address}"


def commands_of(request: Request, best: Point) -> list[dict[str, str]]:
    """What to type next, each with its label, ready for a POSIX shell."""
    if best.placement is not None and not request.spec.understood:
        return []  # whether the engine has such a model is not known, nor whether a file exists
    if best.placement is not None and best.placement.serving is not None:
        return _serve_commands(request, best, best.placement)
    if best.placement is not None:
        size = format_bytes(best.placement.file_bytes)
        commands = [
            {"label": "Get", "command": _to_get(best.placement, size)},
            {"label": "Run it", "command": best.placement.command},
        ]
        if request.engine.front == "ollama":
            commands = [commands[0], *_ollama(dict(best.placement.ollama))]
        return commands if request.spec.gguf is None else commands[1:]
    config = str(best.config)
    model = loadable(request.spec)
    asked = request.workload
    words = ["kvpareto", "verify", "-m", model, "--config", config]
    words += [
        "--budget",
        _typed_budget(request.budget, best.memory.total_high),
        "--context",
        str(asked.context),
    ]
    words += (
        ["--output", str(asked.output)]
        if asked.output != default_output(request.spec.max_context)
        else []
    )
    words += ["--batch", str(asked.batch)] if asked.batch > 1 else []
    words += ["--engine", request.engine.name] if request.engine is not KVPARETO else []
    words += ["--random-weights"] * without_weights(request.spec)
    if request.engine.cannot_run(request.spec, request.hardware) is not None:
        return []
    commands = [{"label": "Check it", "command": shlex.join(words)}]
    if request.engine is KVPARETO:
        run = ["kvpareto", "run", "-m", model, "--config", config, "your prompt"]
        commands.insert(0, {"label": "Run it", "command": shlex.join(run)})
    return commands


def _serve_commands(request: Request, best: Point, placement: Placement) -> list[dict[str, str]]:
    """The checkpoint to get, where it is not the model as named, and the server's start; for an
    engine that is verified, on one card, the line that does."""
    checkpoint = f"{placement.file}, {format_bytes(placement.file_bytes)}"
    get = [{"label": "Get", "command": checkpoint}] if placement.file else []
    run = {"label": "Run it", "command": placement.command}
    if request.engine.name not in VERIFIED or request.gpus or placement.file:
        return [*get, run]
    model = loadable(request.spec)
    engine = request.engine.front or request.engine.name
    words = ["kvpareto", "verify", "-m", model, "--engine", engine]
    words += ["--config", str(best.config)]
    words += ["--budget", _typed_budget(request.budget, best.memory.total_high)]
    words += ["--context", lengths_text(request.workload)]
    if request.workload.output != default_output(request.spec.max_context):
        words += ["--output", str(request.workload.output)]
    words += ["--batch", str(request.workload.batch)] if request.workload.batch > 1 else []
    words += ["--random-weights"] * without_weights(request.spec)
    return [*get, run, {"label": "Check it", "command": shlex.join(words)}]


def _ollama(said: dict[str, Any]) -> list[dict[str, str]]:
    """The Modelfile, the environment that ollama is started with, and the model made and run."""
    environment = " ".join(f"{name}={value}" for name, value in said["environment"].items())
    return [
        {"label": "Modelfile", "command": said["modelfile"].rstrip()},
        {"label": "Serve", "command": f"{environment} ollama serve"},
        {"label": "Create", "command": f"ollama create {said['name']} -f Modelfile"},
        {"label": "Run it", "command": f"ollama run {said['name']}"},
    ]


def _relative_latency(plan: Plan) -> dict[str, Any] | None:
    if not plan.relative_latency:
        return None
    points = {
        config: {"ttft": ttft, "tpot": tpot}
        for config, (ttft, tpot) in plan.relative_latency.items()
    }
    return {"gpu": REFERENCE_GPU, "points": points}


def longest_document(request: Request, contexts: "Sequence[MaxContext]") -> dict[str, Any]:
    """The longest context that fits, for each configuration, longest first."""
    return {
        **_question(request),
        "max_context": [
            {
                "max_context": longest.context,
                "limited_by_model": longest.limited_by_model,
                "limited_by": longest.limited_by,
                **_planned(request, longest.point),
            }
            for longest in contexts
        ],
        "warnings": list(
            dict.fromkeys(
                [
                    *request.spec.warnings,
                    *gpu_notes(request),
                    *(b for x in contexts for b in x.point.accuracy.breaks),
                    *(
                        ends_at_training(request.spec, request.workload.output)
                        if contexts[0].limited_by_model
                        else ()
                    ),
                ]
            )
        ),
    }


def _question(request: Request) -> dict[str, Any]:
    return {
        **heading(request.spec, request.engine, request.workload),
        "fingerprint": fingerprint(request.spec),
        "model_path": request.spec.extra.get("path"),
        "budget": request.budget,
        "gpu": _gpu(request),
        **({"gpus": [gpu.name for gpu in request.gpus]} if request.gpus else {}),
        "gpu_memory": _gpu_memory(request),
        "objective": request.objective,
        "max_loss": request.accepted_loss,
        "task": request.task,
        "accept_risk": request.accept_risk,
        "full_logits": request.workload.full_logits,
        **_targets(request),
    }


def _against_own(plan: Plan) -> dict[str, Any]:
    """Our own runtime's plan beside that of a server."""
    if not plan.request.engine.serves:
        return {}
    from .servers.own_runtime import own_runtime

    return {"own_runtime": own_runtime(plan)}


def _targets(request: Request) -> dict[str, Any]:
    """Seconds and the way to share cards that were asked for; nothing where none were."""
    asked = {
        "ttft_target_s": request.ttft,
        "tpot_target_s": request.tpot,
        "parallel_asked": str(request.parallel) if request.parallel is not None else None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _placing(request: Request) -> dict[str, Any]:
    """What only engines that fill host memory too are asked: its bytes, whether there is no
    device."""
    if request.engine.serves or not request.engine.places:
        return {}
    typed = {} if request.budget_typed else {"budget_typed": False}
    return {"ram": request.ram, "host_only": request.host_only, **typed}


def _gpu(request: Request) -> str | None:
    """The GPU's name; of several the text that --gpu takes."""
    if request.gpus:
        return gpus_text(request.gpus)
    return request.hardware.name if request.hardware else None


def _gpu_memory(request: Request) -> dict[str, Any] | None:
    """The memory of all GPUs in bytes: the vendor's size, what a program gets (the budget is that
    less `reserve`; null where the budget was given), and where that number is from."""
    gpus = request.machine.gpus
    if not gpus:
        return None
    return {
        "marketing": sum(gpu.marketing_bytes for gpu in gpus),
        "reported": sum(gpu.memory_bytes for gpu in gpus),
        "estimated": any(gpu.memory_estimated for gpu in gpus),
        "source": "; ".join(dict.fromkeys(gpu.memory_source for gpu in gpus)),
        "reserve": request.reserve,
    }


def _planned(request: Request, planned: Point) -> dict[str, Any]:
    return {
        **heading(request.spec, request.engine, planned.workload),
        **point(planned.config, planned.memory, planned.accuracy, planned.latency),
        **placed(planned.placement),
    }


def placed_document(spec: ModelSpec, engine: Engine, best: Point) -> dict[str, Any]:
    """estimate_document of an engine that places."""
    how = best.memory, best.accuracy, best.latency
    return estimate_document(spec, best.config, engine, best.workload, *how) | placed(
        best.placement
    )
