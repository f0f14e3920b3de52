"""From what a person types after `--model` to a ModelSpec.

In this order: a model that ships with this package, weights and all (`recall`); a GGUF file, a
folder of one, a blob of ollama; a folder or file on disk; a model in the local hub cache (whose
config is what will be run); a bundled config, by hub id; a download of config.json from the hub.
Nothing but JSON and headers of GGUF is ever read: `auto_map` and other remote code are never
executed, and a config that names them is planned from its numbers.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .. import profiles
from .errors import BadConfig, BadInput
from .models import hub
from .models.bundled import bundled_index, find_bundled, find_by_name, suggestion
from .models.model_name import plain_name
from .models.quantization.section import HINT as UNREAD
from .models.read_config import read_model
from .models.spec import CheckpointQuantization, ModelSpec
from .models.untrusted_json import read_json_object
from .reading import unblocked
from .rope_kinds import rope_warnings, stretched
from .user_data import home

HF_QUANT = "hf_quant_config.json"
SHIPPED = ("recall", "recall-outliers")
"""Models of this project's own, whose weights ship with it (docs/recall_model.md). The bare names
are theirs: a folder called `recall` is asked for as `./recall`."""

DEMO = "smollm2"
"""A real model that a registry package carries (runtime/demo_model.py). The bare name is taken, as
those of SHIPPED are."""
DEMO_CONFIG = "HuggingFaceTB/SmolLM2-135M-Instruct"

OWN = (*SHIPPED, DEMO)
"""The bare names that are taken."""

ON_DISK = ("folder", "file")
"""Sources of models that somebody gave a path of."""

FROM_HUB = ("hub", "local hub cache")
"""Sources of models whose repository may be asked for more, where the network may be used."""

_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".npz")


class LoadedConfig(NamedTuple):
    """A config, what to call its model, the folder of its files (None: no files), its source."""

    config: dict[str, object]
    name: str
    folder: Path | None
    source: str


def load_model(text: str, *, offline: bool = False, trust_remote_code: bool = False) -> ModelSpec:
    """The model that `text` names. Raises BadInput or BadConfig with a hint.

    `trust_remote_code` changes nothing here: a model is planned from its config alone.
    """
    del trust_remote_code
    from_gguf = _load_gguf(text)
    if from_gguf is not None:
        return from_gguf
    loaded = load_config(text, offline=offline)
    spec = _read(loaded)
    if spec.quantization is not None:
        spec = _as_stored(spec, spec.quantization)
    if spec.readings:
        from .engines.kv_bounds import kv_bounds  # rare, and a plan starts without it

        spec = replace(spec, bounds=(*spec.bounds, *kv_bounds(spec)))
    more = {"source": loaded.source, **_places(text, loaded), **stretched(loaded.config)}
    if not (offline or hub.is_offline()) and _lacks_weights(loaded):
        more[hub.MAY_ASK] = loaded.name
    spec = replace(spec, extra={**spec.extra, **more})
    spec = replace(spec, warnings=(*spec.warnings, *rope_warnings(loaded.config)))
    if loaded.folder is None:
        return spec
    from .memory.weight_files import compare_with_files

    return compare_with_files(spec, loaded.folder)


def _read(loaded: LoadedConfig) -> ModelSpec:
    """The model of a config. Raises BadConfig; for a quantization that is not read, with what its
    original is."""
    try:
        return read_model(loaded.config, loaded.name)
    except BadConfig as error:
        if error.hint != UNREAD:
            raise
        from .engines.stored_checkpoints import remedy_of_unread

        hint = remedy_of_unread(loaded.config, loaded.name)
        raise BadConfig(error.message, hint) from None


def _lacks_weights(loaded: LoadedConfig) -> bool:
    """Whether this is a commit of a hub repository, not bundled, without safetensors here."""
    folder = loaded.folder
    return (
        loaded.source in FROM_HUB
        and folder is not None
        and find_bundled(loaded.name) is None
        and hub.COMMIT.fullmatch(folder.name) is not None
        and not any(folder.glob("*.safetensors"))
    )


def gguf_path(text: str) -> Path | None:
    """The GGUF file that `text` names (a file, a folder's one model, a blob of ollama), or None.

    Raises BadInput where it names one that is not there, or several.
    """
    wanted = text.strip()
    likely = ("ollama:", "sha256:", "sha256-")
    if not 0 < len(wanted) <= 4096 or "\0" in wanted or shipped_folder(wanted) is not None:
        return None
    try:
        path = Path(wanted).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError):
        return None
    if is_file and path.suffix.lower() != ".json":
        try:
            with open(path, "rb", opener=unblocked) as file:
                magic = file.read(4)
        except OSError as error:
            raise BadInput(
                f"cannot read {wanted!r}: {error.strerror or error}",
                "give a config.json, a folder, a GGUF file or a hub id",
            ) from None
        return path if path.suffix.lower() == ".gguf" or magic == b"GGUF" else None
    if is_folder and not (path / hub.CONFIG).exists():
        from .models.gguf.files import in_folder

        return in_folder(path)
    if not is_folder and wanted.lower().startswith(likely):
        from .models.gguf.files import ollama_blob

        return ollama_blob(wanted)
    return None


def _load_gguf(text: str) -> ModelSpec | None:
    """The model of a GGUF file, None where `text` names none."""
    path = gguf_path(text)
    if path is None:
        return None
    from .models.gguf.files import model_files, plain_stem
    from .models.gguf.read_gguf import read_gguf

    spec = read_gguf(model_files(path), plain_stem(path))
    places = {"source": "GGUF file", "path": str(path.absolute())}
    return replace(spec, extra={**spec.extra, **places})


def _places(text: str, loaded: LoadedConfig) -> dict[str, str]:
    """Where the model lies: `folder`, of its files; `path`, what was typed where that is on disk,
    so that whoever keeps the answer finds the model again from another folder."""
    places = {"folder": str(loaded.folder.absolute())} if loaded.folder is not None else {}
    if loaded.source in ON_DISK:
        places["path"] = str(Path(text.strip()).expanduser().absolute())
    return places


def _as_stored(spec: ModelSpec, quantization: CheckpointQuantization) -> ModelSpec:
    """The model with 16 bits where its quantization leaves every matrix out."""
    from .memory.weights import quantizes_any

    if spec.readings or quantizes_any(spec):
        return spec
    note = f"quantization_config ({quantization.method}) meets no matrix: all weights have 16 bits"
    return replace(
        spec,
        quantization=replace(quantization, bits=16, group_size=None),
        warnings=(*spec.warnings, note),
    )


def load_config(text: str, *, offline: bool = False) -> LoadedConfig:
    """The raw config behind `text`, as `load_model` finds it."""
    wanted = text.strip()
    if not wanted or "\0" in wanted or len(wanted) > 4096:
        raise BadInput(f"not a model: {text!r}", "give a hub id, a folder or a config.json")
    shipped = shipped_folder(wanted)
    if shipped is not None:
        return LoadedConfig(_read_folder(shipped), wanted, shipped, "shipped with its weights")
    if wanted == DEMO:
        return _demo()
    wanted = plain_name(wanted)
    local = _from_disk(wanted)
    if local is not None:
        return local
    entry = find_bundled(wanted) or find_by_name(wanted)
    repo_id = entry or wanted
    if hub.REPO_ID.fullmatch(repo_id):
        snapshot = hub.cached_snapshot(repo_id)
        if snapshot is not None:
            return LoadedConfig(_read_folder(snapshot), repo_id, snapshot, "local hub cache")
    if entry is not None:
        return _read_bundled(entry)
    if not hub.REPO_ID.fullmatch(wanted):
        raise BadInput(f"no such file or folder: {wanted!r}", suggestion(wanted, OWN))
    if offline or hub.is_offline():
        raise BadInput(f"{wanted!r} is not on this machine, and offline", suggestion(wanted, OWN))
    try:
        folder = hub.download_config(wanted)
    except BadInput as error:
        raise BadInput(error.message, suggestion(wanted, OWN, error.hint)) from None
    return LoadedConfig(_read_folder(folder), wanted, folder, "hub")


def _demo() -> LoadedConfig:
    """The demonstration model: unpacked with its weights, or its bundled config."""
    folder = demo_folder()
    if (folder / hub.CONFIG).is_file():
        return LoadedConfig(_read_folder(folder), DEMO, folder, "unpacked from a package")
    return _read_bundled(DEMO_CONFIG)._replace(name=DEMO)


def shipped_folder(name: str) -> Path | None:
    """The folder of a model that ships with this package, or None for any other name."""
    wanted = name.strip()
    return Path(profiles.__file__).parent / "recall" / wanted if wanted in SHIPPED else None


def demo_folder() -> Path:
    """Where the demonstration model is unpacked to, once it has been asked for."""
    return home() / "models" / DEMO


def _read_bundled(name: str) -> LoadedConfig:
    index = bundled_index()
    entry = index["models"][index["aliases"].get(name, name)]
    config: dict[str, object] = json.loads(profiles.read(f"models/{entry['file']}"))
    if "quantization_file" in entry:
        _merge_hf_quant(config, json.loads(profiles.read(f"models/{entry['quantization_file']}")))
    return LoadedConfig(config, name, None, f"bundled, {entry['kind']} from {entry['source']}")


def _from_disk(wanted: str) -> LoadedConfig | None:
    """What lies at the path `wanted`, or None where that may still be a hub id."""
    try:
        path = Path(wanted).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError, RuntimeError):
        return None
    if exists and gguf_path(wanted) is not None:
        raise BadInput(
            f"{wanted!r} is a GGUF file, and this needs the model's own config.json",
            "give the folder or the hub id of the original model",
        )
    if path.suffix.lower() == ".gguf" and not exists:
        raise BadInput(f"no such file: {wanted!r}", "give a GGUF file, or the folder that has it")
    if path.suffix.lower() in _WEIGHT_FILES and not is_folder:
        raise BadInput(
            f"{path.name} is a file of weights, and a plan is made from config.json",
            "give the folder, the config.json or the hub id of the original model",
        )
    if path.suffix.lower() == ".json" and not exists:
        raise BadInput(f"no such file: {wanted!r}", "give a config.json, a folder or a hub id")
    if is_folder and (path / hub.CONFIG).exists():
        name = path.resolve().name or wanted
        return LoadedConfig(_read_folder(path), name, path, "folder")
    if is_folder and find_bundled(wanted) is None:
        from .models.other_folders import explain_folder

        raise explain_folder(path, wanted)
    if exists and not is_folder:
        from .models.other_folders import ADAPTER, explain_adapter

        if path.name == ADAPTER:
            raise explain_adapter(path, wanted)
        name = path.resolve().parent.name if path.name == hub.CONFIG else path.stem
        folder = path.parent if path.name == hub.CONFIG else None
        config = _read_folder(path.parent) if folder else read_json_object(path)
        return LoadedConfig(config, name or wanted, folder, "file")
    return None


def _read_folder(folder: Path) -> dict[str, object]:
    config = read_json_object(folder / hub.CONFIG)
    if (folder / HF_QUANT).is_file():
        _merge_hf_quant(config, read_json_object(folder / HF_QUANT))
    return config


def _merge_hf_quant(config: dict[str, object], beside: dict[str, object]) -> None:
    """modelopt's older checkpoints keep their quantization in a file beside config.json."""
    if "quantization_config" in config:
        return
    quantization = beside.get("quantization")
    if isinstance(quantization, dict) and quantization.get("quant_algo"):
        config["quantization_config"] = {"quant_method": "modelopt", **quantization}
