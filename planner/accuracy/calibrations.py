"""Calibrations on this machine, found by model, so that a plan uses them at once.

A calibration is a folder `<home>/calibrations/<model>-<hash>` with rows.jsonl (what was
measured), accuracy.json (coefficients fitted to it) and meta.json. `home` is KVPARETO_HOME, or
the user's data folder. A calibration belongs to a model by its name, without the owner and
whatever the case, and by the hash of what its config says about shapes: a fine-tune of the same
shape under another name does not use it, nor does a folder whose config has changed.
"""

import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import BadConfig, BadInput
from ..models.spec import Attention, ModelSpec
from ..models.untrusted_json import read_capped
from .model_sensitivity import shape_of
from .predictor import Predictor

ENVIRONMENT = "KVPARETO_HOME"
FOLDER = "calibrations"
ACCURACY = "accuracy.json"
META = "meta.json"
MOST_BYTES = 256 * 2**20
"""Of a file of a profile that is read whole: of rows, about a hundred thousand."""


def home() -> Path:
    """Where this user's calibrations and other data are kept."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "linux":
        # As platformdirs answers, without the 20 ms that importing it adds to every plan.
        data = os.environ.get("XDG_DATA_HOME", "").strip()
        return (Path(data) if data else Path.home() / ".local" / "share") / "kvpareto"
    from platformdirs import user_data_path

    return user_data_path("kvpareto", appauthor=False)


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


def name_of(spec: ModelSpec) -> str:
    """The model's name without its owner, in lower case, as a folder may be called."""
    last = spec.name.rstrip("/").split("/")[-1].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip(".-") or "model"


def folder_of(spec: ModelSpec) -> Path:
    """Where the calibration of this model is kept, whether there is one or not."""
    return home() / FOLDER / f"{name_of(spec)}-{fingerprint(spec)[:8]}"


def folders() -> list[Path]:
    """Folders of all calibrations on this machine, by name."""
    found = (path.parent for path in (home() / FOLDER).glob(f"*/{META}"))
    return sorted(found, key=lambda folder: folder.name)


def read_json(path: Path) -> dict[str, Any] | None:
    """An object from a regular file; None where there is none that can be read, or where it holds
    a number that is not finite."""
    try:
        found = json.loads(read_capped(path, MOST_BYTES), parse_constant=_refuse)
    except (BadConfig, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The facts of the calibration in `folder`; None where there is none.

    Raises BadInput for facts that are damaged.
    """
    from ..profile_check import Damaged, check_meta

    path = folder / META
    if not path.exists():
        return None
    found = read_json(path)
    if found is None:
        raise _damaged(path, "it is no JSON object of finite numbers")
    try:
        check_meta(found)
    except Damaged as error:
        raise _damaged(path, str(error)) from None
    return found


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def find(spec: ModelSpec) -> Predictor | None:
    """The predictor calibrated for this model on this machine, if there is one.

    Raises BadInput where its coefficients cannot be used: a plan must not fall back unsaid.
    """
    if not (home() / FOLDER).is_dir():
        return None  # the common case costs one look at the disk
    path = folder_of(spec) / ACCURACY
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return None
    found = _load(path, changed)
    if tuple(found.payload["models"][found.payload["own"]]["shape"]) != shape_of(spec):
        raise _damaged(path, "it is of a model of another shape")
    return found


@lru_cache(maxsize=8)
def _load(path: Path, changed: int) -> Predictor:
    """`changed` makes a file that was rewritten be read again."""
    del changed
    from ..profile_check import Damaged, check_payload  # only a calibrated model needs it

    payload = read_json(path)
    if payload is None:
        raise _damaged(path, "it is no JSON object of finite numbers")
    try:
        return check_payload(payload)
    except Damaged as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> BadInput:
    return BadInput(
        f"the calibration in {path} is damaged: {why}",
        "`kvpareto calibrate --resume` fits its rows again; or move the folder away",
    )
