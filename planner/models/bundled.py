"""Configs of models that are part of this package, by hub id, alias or bare name."""

import json
from functools import cache

from ... import profiles
from ..errors import BadInput


def bundled_models() -> list[str]:
    """Hub ids (aliases too) whose configs are part of this package, sorted."""
    index = bundled_index()
    return sorted([*index["models"], *index["aliases"]], key=str.lower)


@cache
def bundled_index() -> dict[str, dict]:
    """profiles/models/index.json: `models` by hub id, `aliases` to one of these."""
    return json.loads(profiles.read("models/index.json"))


def find_bundled(wanted: str) -> str | None:
    """The bundled id that equals `wanted` but for case."""
    index = bundled_index()
    if wanted in index["models"] or wanted in index["aliases"]:
        return wanted
    lower = wanted.lower()
    return next((name for table in index.values() for name in table if name.lower() == lower), None)


def find_by_name(wanted: str) -> str | None:
    """The one bundled id whose name without the owner equals `wanted` but for case. Raises BadInput
    where several owners have it."""
    if "/" in wanted:
        return None
    lower, index = wanted.lower(), bundled_index()
    every = (*index["models"], *index["aliases"])
    owned = [name for name in every if name.lower().endswith(f"/{lower}")]
    if len(owned) > 1:
        raise BadInput(f"several models are called {wanted!r}", f"name one: {', '.join(owned)}")
    return owned[0] if owned else None
