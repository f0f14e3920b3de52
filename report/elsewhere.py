"""What a plan of our runtime names of other engines: the nearest configuration, and its plan."""

import shlex
from dataclasses import replace

from ..planner.engines import NAMES, find_engine
from ..planner.engines.nearest import nearest_configuration
from ..planner.errors import BadInput, NothingFits
from ..planner.formats.configuration import Configuration
from ..planner.memory.run_dtype import sixteen_bits
from ..planner.search.recommend import recommend
from ..planner.search.request import Request
from ..planner.units import exact_bytes
from ..planner.workload import default_output

_OURS = ("kvpareto", "transformers", "transformers-eager")
"""Engines whose configurations go by bits; a plan of another engine is started by itself."""


def elsewhere(request: Request, config: Configuration) -> list[dict[str, str]]:
    """For each other engine that has a plan there: what is nearest by its names, and the command
    that plans the same question for it."""
    if request.engine.name not in _OURS:
        return []
    commands = []
    for engine in NAMES:
        if engine == "vllm" and request.hardware is None:
            continue  # its plans are of cards
        near = nearest_configuration(engine, request.spec, config)
        if near is not None and _has_plan(request, engine, near):
            command = f"{_same_question(request)} --engine {engine}"
            commands.append({"engine": engine, "config": near, "command": command})
    return commands


def _has_plan(request: Request, engine: str, near: str) -> bool:
    """Whether the engine's plan of this question is not refused. Of a card its own placement of
    the nearest configuration says so; all are searched only where that one does not do, and where
    times or a loss must be held."""
    held = request.ttft is not None or request.tpot is not None or request.max_loss is not None
    usual = not request.workload.full_logits and request.spec.dtype != "float32"
    if engine == "llama.cpp" and not held and usual:
        return True  # it runs on every card, and leaves in host memory what has no room there
    try:
        asked = replace(request, engine=find_engine(engine), host_only=request.hardware is None)
    except BadInput:  # more sequences than a server takes, or logits that it does not compute
        return False
    try:
        if not held and _fits(asked, near):
            return True
    except BadInput:  # of this configuration, or of all
        pass
    try:
        recommend(asked)
    except (BadInput, NothingFits):
        return False
    return True


def _fits(asked: Request, config: str) -> bool:
    placed = asked.engine.place(
        asked.spec, Configuration.parse(config), asked.workload, asked.machine
    )
    return placed.fits


def _same_question(request: Request) -> str:
    """The command line that asks this request again."""
    asked = request.workload
    words = ["kvpareto", "plan", "-m", str(request.spec.extra.get("path") or request.spec.name)]
    if request.hardware is not None:
        from ..planner.hardware.gpu_names import gpu_argument

        words += ["--gpu", gpu_argument(request.hardware)]
    if request.reserve is None:
        words += ["--budget", exact_bytes(request.budget)]
    words += ["--context", str(asked.context)]
    words += (
        ["--output", str(asked.output)]
        if asked.output != default_output(request.spec.max_context)
        else []
    )
    bf16 = request.hardware is None or request.hardware.bf16
    stored = request.spec.stored_dtype
    if stored and request.spec.dtype != sixteen_bits(stored, bf16):
        words += ["--dtype", request.spec.dtype]
    words += [f"--{request.at_once}", str(asked.batch)] if asked.batch > 1 else []
    words += ["--objective", request.objective] if request.objective != "accuracy" else []
    if request.max_loss is not None:
        words += ["--max-loss", f"{100 * request.max_loss:.6g}%"]
    words += ["--task", request.task.replace("_", "-")] if request.task is not None else []
    words += ["--ttft", f"{request.ttft:.6g}s"] if request.ttft is not None else []
    words += ["--tpot", f"{request.tpot:.6g}s"] if request.tpot is not None else []
    words += ["--accept-risk"] * request.accept_risk
    return shlex.join(words)
