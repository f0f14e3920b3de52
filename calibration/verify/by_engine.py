"""A verification by the engine that it is for: all that can be typed -> a receipt, or several.

Our runtime and transformers are imported and run here; llama.cpp and vLLM are started. Each takes
some options that the others do not, and what an engine would ignore is refused.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ...planner.engines import NAMES, find_engine
from ...planner.errors import BadInput
from ...report.saved_plan import read_document
from .shared_options import SharedVerifyOptions

_STARTED = ("llama.cpp", "vllm", "sglang")
"""Engines that are other programs: a plan for one is not run by ours."""
_OPTION_OF = {
    "binary": "it is a llama-server: use it with --engine llama.cpp",
    "plugin": "it is vLLM's: use it with --engine vllm",
}
"""Options of one engine, and what is said of them to the others."""

_Taken = TypeVar("_Taken", bound=SharedVerifyOptions)


@dataclass(frozen=True)
class EveryVerifyOption(SharedVerifyOptions):
    """What was typed, whichever engine takes it."""

    engine: str = "kvpareto"
    random_weights: bool = False
    sweep: int | None = None
    tasks: str | None = None
    items: int | None = None
    binary: Path | None = None
    plugin: bool = False
    device: str | None = None
    trust_remote_code: bool = False


def verify_by_engine(options: EveryVerifyOption) -> dict[str, Any]:
    """What `kvpareto verify --json` prints: the receipt; several, as a sweep.

    Raises BadInput (also for options that the engine does not take), NothingFits,
    MissingDependency, Interrupted.
    """
    document = _verified(options)
    if not document["verified"]:
        document |= {
            "fits": False,
            "error": document["verdict"],
            "hint": "`wrong` lists what was worse than promised; `corrected` says what to run",
            "exit_code": 1,
        }
    return document


def _verified(options: EveryVerifyOption) -> dict[str, Any]:
    name = _engine_of(options)
    if name == "vllm":
        from ..vllm.start import check_installed

        check_installed()  # before what imports torch, which vLLM would bring
        from ..vllm import verify as vllm

        plugin = options.plugin or find_engine(options.engine).front == "vllm-plugin"
        return vllm.verify(_taken_by(vllm.VllmOptions, options, "vllm", plugin=plugin))
    if name == "sglang":
        raise BadInput(
            "verify does not run SGLang: its plans are not checked here",
            "it runs kvpareto, transformers, llama.cpp and vllm",
        )
    if name == "llama.cpp":
        from ..llama_cpp import verify as llama_cpp

        return llama_cpp.verify(_taken_by(llama_cpp.LlamaCppOptions, options, name))
    from . import verify as ours

    return ours.verify(_taken_by(ours.VerifyOptions, options, name))


def _engine_of(options: EveryVerifyOption) -> str:
    """The engine's own name: of the one that is named, or that the plan is for. Raises BadInput
    where these are two."""
    named = find_engine(options.engine).name
    if options.plan is None:
        return named
    try:
        planned = read_document(options.plan).get("engine")
    except BadInput:  # said by whoever reads it for good
        return named
    if planned not in NAMES:
        return named
    if named not in (planned, EveryVerifyOption.engine):
        raise BadInput(
            f"{options.plan.name} is a plan for {planned}, and --engine names {named}",
            "leave --engine out",
        )
    return planned if planned in _STARTED else named


def _taken_by(kind: type[_Taken], options: EveryVerifyOption, engine: str, **known: Any) -> _Taken:
    """The options of one engine. Raises BadInput for one that was typed and that it lacks."""
    taken = {one.name for one in fields(kind)}
    for one in fields(options):
        value = getattr(options, one.name)
        if one.name not in {*taken, "engine"} and value != one.default:
            raise BadInput(
                f"--{one.name.replace('_', '-')} is not for --engine {engine}",
                _OPTION_OF.get(one.name, "leave it out"),
            )
    return kind(**{name: getattr(options, name) for name in taken} | known)
