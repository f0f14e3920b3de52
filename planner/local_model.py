"""A model that somebody gave a path of: what programs that load it are given, and whether there is
anything to load. A plan needs no weights, and is often made where there are none."""

from pathlib import Path

from .models.spec import ModelSpec

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def loadable(spec: ModelSpec) -> str:
    """The model as a program takes it that loads weights: its GGUF file, its folder or its hub id.
    A folder's config.json stands for the folder."""
    path = spec.extra.get("path")
    if not path:
        return spec.name
    return path if spec.gguf is not None else spec.extra.get("folder", path)


def without_weights(spec: ModelSpec) -> bool:
    """Whether the model was given as a path, and no weights lie there."""
    path = spec.extra.get("path")
    if not path or spec.gguf is not None:
        return False
    folder = spec.extra.get("folder")  # none of a file that is not called config.json
    return folder is None or not any(any(Path(folder).glob(each)) for each in WEIGHTS)
