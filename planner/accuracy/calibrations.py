"""Calibrations on this machine: found by the model's config and weights, and used by its plans.

A calibration is a folder `<home>/calibrations/<model>-<hash>` with rows.jsonl (what was
measured), accuracy.json (coefficients fitted to it) and meta.json. `home` is KVPARETO_HOME, or
the user's data folder.

A calibration belongs to a model by two fingerprints in its meta.json: of what the config says
about shapes, and of the weights (weights_sample.py). The name of a folder is for people: a model
that is moved or renamed keeps its calibration, and two models of one config do not share it.
Where one side's weights cannot be looked at (a plan from a config alone, a calibration made before
weights were fingerprinted) the config decides, with a note in the plan; two hub ids whose names
differ, the owner aside, are two models even so.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..light_dataclass import dataclass
from ..models.finite_json import read_json
from ..models.spec import Attention, ModelSpec
from ..user_data import home
from .model_features import shape_of
from .predictor import Predictor

FOLDER = "calibrations"
AFFINE = "affine.safetensors"
"""Maps of keys and values (runtime/cache/affine.py)."""
ACCURACY = "accuracy.json"
META = "meta.json"
_NOT_COMPARED = "its calibration was chosen by the config alone: {why}"


@dataclass(frozen=True)
class CalibrationMatch:
    """A calibration's folder, and why it is less than certain that it is this model's (or "")."""

    folder: Path
    note: str


def fingerprint(spec: ModelSpec) -> str:
    """Hash of what memory and accuracy are planned from: type, widths, mixers, parameters."""
    from hashlib import sha256

    mixers = [
        [
            type(m).__name__,
            count,
            *(
                [m.query_heads, m.kv_heads, m.head_dim, m.value_dim, m.window]
                if isinstance(m, Attention)
                else []
            ),
        ]
        for m, count in spec.mixer_counts
    ]
    shape = [spec.model_type, spec.hidden, spec.vocab, len(spec.layers), spec.parameters, mixers]
    return sha256(json.dumps(shape).encode()).hexdigest()[:16]


def weights_of(spec: ModelSpec) -> str | None:
    """Fingerprint of the model's weights; None where they are not on this machine."""
    if spec.gguf is not None:
        from .weights_sample import file_fingerprint

        return file_fingerprint(Path(spec.extra["path"]))
    return _weights_at(spec.name, spec.extra.get("folder"))


def _weights_at(name: str, place: str | None) -> str | None:
    from ..models import hub
    from .weights_sample import weights_fingerprint

    folder = Path(place) if place else None
    if folder is None and hub.REPO_ID.fullmatch(name):
        folder = hub.cached_snapshot(name)
    return weights_fingerprint(folder) if folder is not None else None


def name_of(spec: ModelSpec) -> str:
    """The model's name without its owner, in lower case, as a folder may be called."""
    last = spec.name.rstrip("/").split("/")[-1].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip(".-") or "model"


def folder_of(spec: ModelSpec) -> Path:
    """Where the calibration of this model is kept, whether there is one or not.

    A new one is called by the model's name, numbered where another model has taken that.
    """
    matched = match(spec)
    if matched is not None:
        return matched.folder
    base, end = name_of(spec), fingerprint(spec)[:8]
    names = (f"{base}-{end}", *(f"{base}-{i}-{end}" for i in range(2, 1000)))
    places = (home() / FOLDER / name for name in names)
    return next(place for place in places if not (place / META).exists())


def match(spec: ModelSpec) -> CalibrationMatch | None:
    """The calibration of this model, if there is one; weights are looked at only where there is
    one of its config. Raises BadInput where the config fits several, and nothing tells more."""
    try:
        if not (home() / FOLDER).is_dir():
            return None  # the common case costs one look at the disk
    except (OSError, BadInput):
        return None
    shape = fingerprint(spec)
    candidates = tuple(
        (folder, _changed(folder / META))
        for folder in sorted((home() / FOLDER).glob(f"*-{shape[:8]}"))
        if (folder / META).exists() or (folder / ACCURACY).exists()
    )
    if not candidates:
        return None
    return _match(candidates, shape, spec.name, spec.extra.get("folder"))


@lru_cache(maxsize=8)
def _match(
    folders: tuple[tuple[Path, int], ...], shape: str, name: str, place: str | None
) -> CalibrationMatch | None:
    """`folders`: those of the config, with the times of their meta.json, so that a changed one is
    read again. A plan asks many times."""
    metas = [
        (folder, read_json(folder / META) or _lost_meta(folder, shape)) for folder, _ in folders
    ]
    candidates = [(folder, meta) for folder, meta in metas if meta.get("fingerprint") == shape]
    if not candidates:
        return None
    here = _weights_at(name, place)
    unsure = []
    for folder, meta in candidates:
        there = meta.get("weights")
        if here is not None and here == there:
            return CalibrationMatch(folder, "")
        if here is None or there is None:
            unsure.append((folder, meta))
    return _by_config(name, unsure, here is None)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _lost_meta(folder: Path, shape: str) -> dict[str, Any]:
    """What a folder without a readable meta.json says by its name, for nothing is passed over."""
    return {"model": f"?/{folder.name.rsplit('-', 1)[0]}", "fingerprint": shape}


def _by_config(
    name: str, candidates: list[tuple[Path, dict[str, Any]]], weights_away: bool
) -> CalibrationMatch | None:
    """Of calibrations whose weights cannot be compared: the one that is not another model's."""
    left = []
    for folder, meta in candidates:
        called = str(meta.get("model", ""))
        same = called.split("/")[-1].lower() == name.split("/")[-1].lower()
        if same or "/" not in called or "/" not in name:  # a folder's name says nothing
            left.append((folder, same))
    named = [folder for folder, same in left if same] or [folder for folder, _ in left]
    if not named:
        return None
    if len(named) > 1:
        listed = ", ".join(folder.name for folder in named)
        raise BadInput(
            f"{name} has the config of several calibrations, and no weights here to tell by: "
            f"{listed}",
            "give the folder that holds the weights, or move the other calibrations away",
        )
    why = (
        "the weights are not on this machine to be compared"
        if weights_away
        else "it does not say of which weights it is; `kvpareto calibrate -m MODEL --resume` adds "
        "them"
    )
    return CalibrationMatch(named[0], _NOT_COMPARED.format(why=why))


def begin(folder: Path, spec: ModelSpec) -> None:
    """Say in `folder` whose calibration it is, before its first row or once the weights are here.

    Raises BadInput where it was made with other weights.
    """
    from ..whole_file import write_whole

    meta = read_json(folder / META) or {}
    here, there = weights_of(spec), meta.get("weights")
    if here is not None and there is not None and here != there:
        raise BadInput(
            f"{folder} was measured with other weights than those of {spec.name} now",
            "move that folder away to calibrate these",
        )
    if not meta or (there is None and here is not None):
        said = {"schema": 1, "model": spec.name, "fingerprint": fingerprint(spec), **meta}
        write_whole(folder / META, json.dumps(said | {"weights": here}, indent=1) + "\n")


def folders() -> list[Path]:
    """Folders of all calibrations on this machine, by name; none where there is no home, or one
    that this user may not read."""
    try:
        calibrated = [path.parent for path in (home() / FOLDER).glob(f"*/{META}")]
    except (OSError, BadInput):
        return []
    return sorted(calibrated, key=lambda folder: folder.name)


def named(name: str) -> list[Path]:
    """Folders of the calibrations called `name`: by the folder's own name, or by the model's with
    its owner or without."""
    every = folders()
    if any(folder.name == name for folder in every):
        return [folder for folder in every if folder.name == name]
    wanted = name.rstrip("/").split("/")[-1].lower()
    return [f for f in every if wanted in (f.name, f.name.rsplit("-", 1)[0])]


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The facts of the calibration in `folder`; None where there is none.

    Raises BadInput for facts that are damaged.
    """
    from .calibration_files.check import check_meta
    from .calibration_files.values import DamagedCalibration

    path = folder / META
    if not path.exists():
        return None
    meta = read_json(path)
    if meta is None:
        raise _damaged(path, "it is no JSON object of finite numbers")
    try:
        check_meta(meta)
    except DamagedCalibration as error:
        raise _unusable(path, error.words) from None
    return meta


def find(spec: ModelSpec) -> Predictor | None:
    """The predictor calibrated for this model on this machine, if there is one.

    Raises BadInput where its coefficients cannot be used: a plan must not fall back unsaid.
    """
    matched = match(spec)
    if matched is None:
        return None
    path = matched.folder / ACCURACY
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return None
    predictor = _load(path, changed)
    if tuple(predictor.payload["models"][predictor.payload["own"]]["shape"]) != shape_of(spec):
        raise _damaged(path, "it is of a model of another shape")
    return predictor


def note(spec: ModelSpec) -> tuple[str, ...]:
    """What is to be said of the calibration that `find` finds: nothing, where it is certain."""
    matched = match(spec)
    if matched is None or not matched.note or not (matched.folder / ACCURACY).exists():
        return ()
    return (matched.note,)


@lru_cache(maxsize=8)
def _load(path: Path, changed: int) -> Predictor:
    """`changed` makes a file that was rewritten be read again."""
    del changed
    from .calibration_files.check import check_payload
    from .calibration_files.values import DamagedCalibration

    payload = read_json(path)
    if payload is None:
        raise _damaged(path, "it is no JSON object of finite numbers")
    try:
        return check_payload(payload)
    except DamagedCalibration as error:
        raise _unusable(path, error.words) from None


def _damaged(path: Path, why: str) -> BadInput:
    return _unusable(path, f"is damaged: {why}")


def _unusable(path: Path, words: str) -> BadInput:
    return BadInput(
        f"the calibration in {path} {words}",
        "`kvpareto calibrate -m MODEL --resume` fits its rows again; or move the folder away",
    )
