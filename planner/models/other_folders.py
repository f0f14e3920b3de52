"""Folders without a config.json: what each kind is, and what to give instead.

A LoRA adapter, an image pipeline, a cache entry of the hub, a folder of several models:
people try all of these, and each has another next step.
"""

from itertools import islice
from pathlib import Path

from ..errors import BadConfig
from .untrusted_json import read_json_object

ADAPTER = "adapter_config.json"
LOOK_AT = 1000
"""Names of a folder that are looked at, whatever its size."""


def explain_folder(folder: Path, typed: str) -> BadConfig:
    """The error for `folder`, which has no config.json; `typed` is what it was called."""
    names = first_names(folder)
    if ADAPTER in names:
        return explain_adapter(folder / ADAPTER, typed)
    if folder.name.startswith("models--"):
        repo = folder.name.removeprefix("models--").replace("--", "/")
        return BadConfig(f"{typed!r} is the hub's cache of {repo}", f"give {repo}")
    if "model_index.json" in names:
        return BadConfig(
            f"{typed!r} is a pipeline of diffusers", "kvpareto plans language models only"
        )
    if "params.json" in names:
        return BadConfig(
            f"{typed!r} is a checkpoint in its maker's own format (params.json)",
            "give the folder or hub id of the converted model, which has a config.json",
        )
    inside = [n for n in names if (folder / n / "config.json").is_file()]
    hint = "give the folder that transformers would load"
    if inside:
        hint = f"give one of the folders in it: {', '.join(inside[:3])}"
        hint += ", …" if len(inside) > 3 else ""
    return BadConfig(f"no config.json in {typed!r}", hint)


def explain_adapter(file: Path, typed: str) -> BadConfig:
    """The error for an adapter, naming the model it belongs to where it says so."""
    try:
        base = read_json_object(file).get("base_model_name_or_path")
    except BadConfig:
        base = None
    return adapter_error(typed, base)


def adapter_error(typed: str, base: object) -> BadConfig:
    """`base` is what adapter_config.json calls its model."""
    if not isinstance(base, str) or not base.strip():
        return BadConfig(f"{typed!r} is a LoRA adapter", "give the model it was trained on")
    return BadConfig(
        f"{typed!r} is a LoRA adapter of {base}",
        f"give {base}, or the model with the adapter merged into it",
        {"base_model": base},
    )


def first_names(folder: Path, most: int = LOOK_AT) -> list[str]:
    """Names of what is in a folder, in order; of a large one the first `most` that the system
    gives, of one that cannot be read none."""
    try:
        return sorted(path.name for path in islice(folder.iterdir(), most))
    except OSError:
        return []
