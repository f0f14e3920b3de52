"""Every engine by its name: one folder each, imported when it is asked for.

A folder's __init__ holds the engine under the folder's name in capitals.
"""

from importlib import import_module

from ..engine import Engine
from ..errors import BadInput

NAMES = ("kvpareto", "transformers", "transformers-eager", "llama.cpp", "vllm", "sglang")
"""Names of the folders here, as --engine takes them: `-` and `.` for `_`."""

ANY = "any"
"""What --engine takes of `plan` to compare engines."""

FRONTS = {
    "llamacpp": "llama.cpp",
    "ollama": "llama.cpp",
    "lmstudio": "llama.cpp",
    "vllm-plugin": "vllm",
}
"""Other names of an engine, and programs that run it."""


def find_engine(name: str) -> Engine:
    """The engine called `name`. Raises BadInput."""
    wanted = name.strip().lower()
    front = wanted if wanted in FRONTS and FRONTS[wanted] != wanted else ""
    wanted = FRONTS.get(wanted, wanted)
    if wanted not in NAMES:
        from difflib import get_close_matches  # only on the way to an error

        known = f"engines are {', '.join([*NAMES, 'ollama', 'vllm-plugin'])}"
        if wanted == ANY:
            raise BadInput(
                f"--engine {ANY} compares engines: only `plan` takes it, without --max-context",
                f"name one: {known}",
            )
        near = get_close_matches(wanted, [*NAMES, *FRONTS], n=1, cutoff=0.7)
        near = [FRONTS.get(near[0], "")] if near == ["llamacpp"] else near
        hint = f"did you mean {near[0]}? " if near else ""
        known += f", and {ANY}, with which `plan` compares them"
        raise BadInput(f"no engine is called {name!r}", hint + known)
    folder = wanted.replace("-", "_").replace(".", "_")
    engine: Engine = getattr(import_module(f".{folder}", __package__), folder.upper())
    return engine.behind(front) if front else engine


def all_engines() -> list[Engine]:
    """Every engine, in the order of NAMES."""
    return [find_engine(name) for name in NAMES]


DOOR = (
    "kv_bounds",
    "kvpareto",
    "kvpareto.checkpoints",
    "kvpareto.configurations",
    "kvpareto.packed_cache",
    "kvpareto.rounded_rows",
    "kvpareto.where_runs",
    "llama_cpp",
    "llama_cpp.parts",
    "llama_cpp.place",
    "llama_cpp.run_settings",
    "nearest",
    "stored_checkpoints",
    "transformers",
    "transformers_eager",
    "vllm.asked_settings",
    "vllm.settings",
    "vllm.sizing",
    "vllm.speed",
    "vllm.start",
    "vllm.step_time",
)
"""Modules that other rooms may import, beside what stands above."""
