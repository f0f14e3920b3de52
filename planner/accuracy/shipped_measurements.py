"""Pretrained models that this project measured: their calibrations ship, and plans use them.

A file of `profiles/measured/` holds what one model's own runs say (its noise, every measured
configuration) beside the published fit, which it does not repeat. It is used for the hub id it is
about, for a folder or a GGUF file of that name, and only where the shape agrees. A calibration made
on this machine goes before it.

The weights that were measured came from a quantized file, which the note of every prediction says:
16 bits mean that file's own values.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ... import profiles
from ..models.spec import ModelSpec
from .model_features import shape_of
from .predictor import Predictor

FOLDER = "measured"
PUBLISHED = "published/accuracy.json"


@lru_cache(maxsize=1)
def measured_models() -> Mapping[str, Mapping[str, Any]]:
    """Hub ids -> `file`, `shape`, and for a person `weights`, `gpu`, `points`, `note`."""
    found: dict[str, dict[str, Any]] = json.loads(profiles.read(f"{FOLDER}/index.json"))
    return found


def measured_as(spec: ModelSpec) -> str | None:
    """The hub id whose measurements are of this model; None for all others."""
    name = spec.name.rstrip("/").split("/")[-1].lower()
    for hub_id, known in measured_models().items():
        last = hub_id.split("/")[-1].lower()
        same = name in (last, known.get("demo")) or (
            spec.gguf is not None and name.startswith(last)
        )
        others = "/" in spec.name.strip("/") and spec.name.lower() != hub_id.lower()
        if same and not others and tuple(known["shape"]) == shape_of(spec):
            return hub_id
    return None


def find(spec: ModelSpec) -> Predictor | None:
    """The predictor by the shipped measurements of this model, if there are any."""
    hub_id = measured_as(spec)
    return None if hub_id is None else _predictor(hub_id)


def note(spec: ModelSpec) -> tuple[str, ...]:
    """What is to be said of measurements that ship: on which weights, and where."""
    hub_id = measured_as(spec)
    return () if hub_id is None else (str(measured_models()[hub_id]["note"]),)


@lru_cache(maxsize=4)
def _predictor(hub_id: str) -> Predictor:
    published = json.loads(profiles.read(PUBLISHED))
    own = json.loads(profiles.read(f"{FOLDER}/{measured_models()[hub_id]['file']}"))
    own["models"] = {**published["models"], **own["models"]}
    return Predictor({**published, **own})
