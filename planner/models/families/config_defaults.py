"""What transformers assumes of fields that a config leaves out, by model type.

`config_defaults.jsonl` holds one line for each model type, written from transformers' configuration
classes by benchmarks/family_defaults.py; only the lines asked for are parsed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Any

from .... import profiles
from ...errors import BadConfig
from ...light_dataclass import dataclass
from ..config_fields import Fields


@dataclass(frozen=True)
class ConfigDefaults:
    """Defaults and older spellings of fields, what an absent section is taken as, and which
    sections are read by that class whatever `model_type` they name."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fixed: Sequence[str] = ()


@lru_cache(maxsize=1)
def _lines() -> dict[str, str]:
    line_of: dict[str, str] = {}
    for line in profiles.read_beside(__spec__, "config_defaults.jsonl").splitlines():
        # {"model_type": "qwen3", ...: the fourth piece between quotes is the name
        line_of[line.split('"', 4)[3]] = line
    return line_of


@lru_cache(maxsize=64)
def config_defaults_of(model_type: str) -> ConfigDefaults:
    """The facts about a model type; empty where transformers does not know it."""
    line = _lines().get(model_type)
    if line is None:
        return ConfigDefaults()
    read = json.loads(line)
    return ConfigDefaults(read["defaults"], read["aliases"], read["sections"], read["fixed"])


def fields_of(
    raw: Mapping[str, Any], model_type: str, *, path: str = "", notes: list[str] | None = None
) -> Fields:
    """Checked fields of a section, with its family's facts."""
    facts = config_defaults_of(model_type)
    return Fields(
        raw,
        kind=model_type,
        path=path,
        aliases=facts.aliases,
        defaults=facts.defaults,
        notes=notes,
    )


def section(f: Fields, name: str, model_type: str = "") -> Fields:
    """A nested section; absent, its family's defaults describe it, with a note.

    The section's own `model_type` decides unless the family fixes it, else `model_type`, else
    what transformers assumes.
    Raises BadConfig where nothing does.
    """
    facts = config_defaults_of(f.kind)
    raw, known = f.mapping(name), facts.sections.get(name, {})
    notes = f.notes
    if raw is None:
        raw, notes = known, []
        f.note(f"{name} is not in the config: transformers' defaults describe it")
    named = None if name in facts.fixed else raw.get("model_type")
    kind = named if isinstance(named, str) and config_defaults_of(named).defaults else ""
    kind = kind or model_type or known.get("model_type", "")
    if not kind:
        raise BadConfig(
            f"config.json: {name} does not say its model_type",
            "use the model's published config.json, complete",
        )
    return fields_of(raw, kind, path=f"{f.path}{name}.", notes=notes)
