"""Configs of models that are part of this package, by hub id, alias or bare name."""

import json
from collections.abc import Sequence
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


def suggestion(wanted: str, more: Sequence[str] = (), otherwise: str = "") -> str:
    """A hint that names the bundled models, or the names in `more`, closest to what was typed: by
    spelling, else those of a family, which people write with its marks or without (`llama3`,
    `gpt oss`)."""
    from difflib import get_close_matches  # only on the way to an error

    by_lower = {name.lower(): name for name in (*more, *bundled_models())}
    short = {name.split("/")[-1]: name for name in by_lower}
    lower = wanted.lower()
    close = get_close_matches(lower, by_lower, n=3, cutoff=0.75)
    close += [short[c] for c in get_close_matches(lower.split("/")[-1], short, n=3, cutoff=0.75)]
    letters = _letters(lower)
    if not close and len(letters) > 1 and lower[0].isalnum():  # no path: ./x
        close = [short[n] for n in sorted(short, key=len) if letters in _letters(n)]
    if close:
        names = list(dict.fromkeys(by_lower[name] for name in close))[:3]
        return f"did you mean {' or '.join(names)}?"
    return otherwise or "give a bundled id (`kvpareto profiles list`), a folder, or a config.json"


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name))
