"""What to type: llama-server's flags, the file to get, and an ollama Modelfile."""

import json
import re
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from .... import profiles
from ...models.model_name import FORMAT_IN_NAME
from ...models.spec import ModelSpec
from .run_settings import DEFAULT_BATCH, RunSettings

Flags = tuple[tuple[str, str | None], ...]

OLLAMA_CACHES = ("f16", "q8_0", "q4_0")
"""What OLLAMA_KV_CACHE_TYPE takes, for K and V alike."""


def file_name(spec: ModelSpec, mix: str) -> str:
    """The GGUF file: the model's own, a published one that is known, or as files of that type are
    called."""
    path = spec.extra.get("path", "")
    if spec.gguf is not None and path:
        return path
    known = _published(spec, mix)
    return known[1] if known is not None else f"{_short(spec)}-{mix}.gguf"


def file_words(spec: ModelSpec, mix: str) -> str:
    """The file to get, for people: Qwen2.5-7B-Instruct Q5_K_M."""
    return f"{_short(spec)} {mix}" + " of the original model" * of_original(spec)


def of_original(spec: ModelSpec) -> bool:
    """Whether the file is not made of this checkpoint, which is rounded already, but of the model
    that it was quantized from. FP8 loses next to nothing, and MXFP4 is kept as it is: both are what
    some models are published in."""
    stored = spec.quantization
    rounded = stored is not None and stored.bits < 16 and stored.method not in ("fp8", "mxfp4")
    return rounded and spec.gguf is None


def original_notes(spec: ModelSpec) -> tuple[str, ...]:
    """Which model the file has to be of, where that is not the one that is named."""
    if spec.quantization is None or not of_original(spec):
        return ()
    return (
        f"the GGUF is one of the model that {spec.name} was quantized from, and its accuracy that "
        f"one's: made of this {spec.quantization.method} checkpoint it would keep both losses",
    )


def file_repository(spec: ModelSpec, mix: str) -> str:
    """The hub's repository that is known to have the file of `file_name`; empty where none is."""
    known = None if spec.gguf is not None else _published(spec, mix)
    return known[0] if known is not None else ""


def file_address(spec: ModelSpec, mix: str) -> str:
    """Where the file is, if it is known to exist (profiles/gguf_files.json); else a search for
    such files. Empty where the model is a file."""
    if spec.gguf is not None:
        return ""
    known = _published(spec, mix)
    if known is not None:
        return f"https://huggingface.co/{known[0]}/blob/main/{known[1]}"
    return f"https://huggingface.co/models?search={_short(spec)}+GGUF"


def _published(spec: ModelSpec, mix: str) -> tuple[str, str] | None:
    """Repository and file of this model in that type."""
    row = _files().get(spec.name)
    if row is None or mix not in row["types"]:
        return None
    return row["repository"], row["file"].format(mix)


@lru_cache(maxsize=1)
def _files() -> dict[str, Any]:
    models: dict[str, Any] = json.loads(profiles.read("gguf_files.json"))["models"]
    return models


def command_flags(
    run: RunSettings,
    file: str,
    device_layers: int | None,
    host_experts: int,
    card_flags: Sequence[tuple[str, str | None]] = (),
) -> Flags:
    """llama-server's flags, each with its value; None for those without. `device_layers`: None
    where there is no card."""
    on_device = 0 if device_layers is None else device_layers + 1  # the head counts as a layer
    flags: list[tuple[str, str | None]] = [
        ("-m", file),
        ("-c", str(run.total_context)),
        ("-ngl", str(on_device)),
    ]
    flags += card_flags
    if host_experts:
        flags.append(("--n-cpu-moe", str(host_experts)))
    flags += [
        ("-ctk", run.keys),
        ("-ctv", run.values),
        ("-fa", "on" if run.flash else "off"),
        ("-ub", str(run.micro_batch)),
    ]
    if run.micro_batch > DEFAULT_BATCH:
        flags.append(("-b", str(run.micro_batch)))
    flags.append(("-np", str(run.sequences)))
    flags += [("--swa-full", None)] if run.swa_full else []
    flags += [("--kv-unified", None)] if run.unified else []
    return tuple(flags)


def command_line(flags: Flags, program: str = "llama-server") -> str:
    """The command, quoted for a POSIX shell."""
    words = [word for flag in flags for word in flag if word is not None]
    return shlex.join([program, *words])


def modelfile(flags: Flags) -> dict[str, object]:
    """An ollama Modelfile for the same plan, the name of what is made of it, the environment it
    needs, and what it cannot say."""
    said = dict(flags)
    lines = [
        f"FROM {said['-m']}",
        f"PARAMETER num_ctx {said['-c']}",
        f"PARAMETER num_gpu {said['-ngl']}",
        f"PARAMETER num_batch {said['-ub']}",
    ]
    keys, values = said["-ctk"], said["-ctv"]
    environment = {"OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_NUM_PARALLEL": said["-np"]}
    missing = []
    if keys == values and keys in OLLAMA_CACHES:
        environment["OLLAMA_KV_CACHE_TYPE"] = keys
    else:
        missing.append(f"ollama has one cache type of {', '.join(OLLAMA_CACHES)} for K and V")
    if "--n-cpu-moe" in said:
        missing.append("ollama places experts by itself: it has no --n-cpu-moe")
    return {
        "modelfile": "\n".join(lines) + "\n",
        "name": _ollama_name(str(said["-m"])),
        "environment": environment,
        "missing": missing,
    }


def _ollama_name(file: str) -> str:
    """What ollama may call the model of this file: letters, digits, `.`, `-` and `_`."""
    stem = PurePath(file).name.removesuffix(".gguf").lower()
    return re.sub(r"[^a-z0-9._-]", "_", stem).lstrip("._-") or "model"


def _short(spec: ModelSpec) -> str:
    return _short_name(spec.name)


@lru_cache(maxsize=16)
def _short_name(full: str) -> str:
    name = FORMAT_IN_NAME.sub("", PurePath(full).name.removesuffix(".gguf"))
    return re.sub(r"[^\w.+-]", "_", name) or "model"
