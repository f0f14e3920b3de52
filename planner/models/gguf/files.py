"""From what was typed to the GGUF files of one model, all of a split's in order.

    model.gguf                        the file
    model-00001-of-00003.gguf         any part of a split: all parts, which must lie beside it
    folder/                           its one model; encoders of images (mmproj) are passed over
    sha256:4b1a..., sha256-4b1a...    a blob of ollama by its digest, or enough of its start
    ollama:qwen3:8b                   what ollama's manifest of that name points to

Ollama keeps its blobs in ~/.ollama/models, or where OLLAMA_MODELS says.
"""

import os
import re
from pathlib import Path

from ...errors import BadConfig, BadInput
from ..other_folders import first_names
from ..untrusted_json import read_json_object
from .header import HINT, GgufFile, is_gguf, read_header

SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
MAX_PARTS = 2000
MAX_BLOBS = 100_000
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{8,64})", re.IGNORECASE)
_NAME = re.compile(r"ollama:([\w.-]+(?:/[\w.-]+)*?)(?::([\w.-]+))?", re.ASCII)
_MODEL_LAYER = "application/vnd.ollama.image.model"


def ollama_blob(text: str) -> Path | None:
    """The blob that a digest or `ollama:name` means; None for any other text."""
    if digest := _DIGEST.fullmatch(text):
        return _blob(digest[1].lower(), text)
    if name := _NAME.fullmatch(text):
        return _blob(_manifest_digest(name[1], name[2] or "latest"), text)
    return None


def model_files(path: Path) -> tuple[GgufFile, ...]:
    """The headers of the model that the file `path` is, or is a part of.

    Raises BadConfig for a part that is missing, and for parts of different splits.
    """
    first = read_header(path)
    parts = first.metadata.get("split.count", 1)
    if not isinstance(parts, int) or parts <= 1:
        return (first,)
    named = SPLIT.fullmatch(path.name)
    if named is None or int(named[3]) != parts:
        raise BadConfig(
            f"{path.name} is one of {parts} parts, and its name does not say which",
            "name the parts as llama.cpp does: model-00001-of-00003.gguf",
        )
    if parts > MAX_PARTS:
        raise BadConfig(f"{path.name} is one of {parts:,} parts, more than any model has", HINT)
    headers = []
    for number in range(1, parts + 1):
        part = path.with_name(f"{named[1]}-{number:05}-of-{parts:05}.gguf")
        if not part.is_file():
            raise BadConfig(
                f"{path.name} is one of {parts} parts, and {part.name} is not beside it",
                "fetch all parts into one folder",
            )
        header = first if part == path else read_header(part)
        if header.metadata.get("split.no") != number - 1:
            raise BadConfig(f"{part.name} is not part {number} of its split", HINT)
        headers.append(header)
    _refuse_repeated(headers)
    return tuple(headers)


def _refuse_repeated(files: list[GgufFile]) -> None:
    seen: set[str] = set()
    for file in files:
        for tensor in file.tensors:
            if tensor.name in seen:
                raise BadConfig(f"{file.path.name} repeats {tensor.name!r} of another part", HINT)
            seen.add(tensor.name)


def in_folder(folder: Path) -> Path | None:
    """The one model among a folder's GGUF files, None where there is none.

    Raises BadInput, with their names, where there are several.
    """
    models = []
    for name in first_names(folder):
        split = SPLIT.fullmatch(name)
        if not name.lower().endswith(".gguf") or name.lower().startswith("mmproj"):
            continue
        if (split is None or int(split[2]) == 1) and is_gguf(folder / name):
            models.append(name)
    if len(models) > 1:
        shown = ", ".join(models[:4]) + (", …" if len(models) > 4 else "")
        raise BadInput(f"{folder.name} holds {len(models)} GGUF models", f"give one of {shown}")
    return folder / models[0] if models else None


def plain_stem(path: Path) -> str:
    """What to call the model: its file's name without the part and the ending."""
    split = SPLIT.fullmatch(path.name)
    if split is not None:
        return split[1]
    return path.stem if path.suffix.lower() == ".gguf" else path.name


def _ollama() -> Path:
    own = os.environ.get("OLLAMA_MODELS")
    return Path(own).expanduser() if own else Path.home() / ".ollama" / "models"


def _blob(start: str, typed: str) -> Path:
    folder = _ollama() / "blobs"
    names = [name for name in first_names(folder, MAX_BLOBS) if name.startswith(f"sha256-{start}")]
    blobs = [name for name in names if re.fullmatch(r"sha256-[0-9a-f]{64}", name)]
    if len(blobs) != 1:
        several = f"{len(blobs)} blobs of ollama begin so" if blobs else "ollama has no such blob"
        raise BadInput(
            f"{typed!r}: {several} in {folder}",
            "give more of the digest, or set OLLAMA_MODELS to the folder of its models",
        )
    return folder / blobs[0]


def _manifest_digest(name: str, tag: str) -> str:
    """The digest of the weights in the manifest of `name:tag`."""
    parts = name.split("/")
    if any(part in (".", "..") for part in (*parts, tag)):
        raise BadInput(f"'ollama:{name}:{tag}' is no name of ollama", "write it as ollama lists it")
    host = ["registry.ollama.ai", "library"] if len(parts) == 1 else []
    host = ["registry.ollama.ai"] if len(parts) == 2 else host
    file = _ollama().joinpath("manifests", *host, *parts, tag)
    if not file.is_file():
        raise BadInput(
            f"ollama has no manifest of {name}:{tag} in {_ollama()}",
            "`ollama list` shows its models",
        )
    layers = read_json_object(file).get("layers")
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and layer.get("mediaType") == _MODEL_LAYER:
            digest = _DIGEST.fullmatch(str(layer.get("digest")))
            if digest is not None:
                return digest[1].lower()
    raise BadConfig(f"ollama's manifest of {name}:{tag} names no weights", HINT)
