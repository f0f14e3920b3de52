"""Which module reads which model type, so that asking for one imports no other's.

Each module under families/ lists its types: STYLES (decoders), READERS (anything else), ALIASES
(other names of its STYLES). model_types.json is the index over them, written by `make docs`; a
test holds it to the modules.
"""

import json
from importlib import import_module

from .... import profiles
from .decoder import Style


def _by_type(modules: dict[str, list[str]]) -> dict[str, str]:
    return {name: module for module, names in modules.items() for name in names}


_index = json.loads(profiles.read_beside(__spec__, "model_types.json"))
STYLE_MODULES = _by_type(_index["styles"])
READER_MODULES = _by_type(_index["readers"])
STYLE_ALIASES: dict[str, str] = _index["aliases"]
"""Text sections that are another type's decoder under a name of their own."""


def style_of(model_type: str) -> Style | None:
    """The decoder style of a text model type, or None."""
    name = STYLE_ALIASES.get(model_type, model_type)
    module = STYLE_MODULES.get(name)
    if module is None:
        return None
    style: Style = import_module(f".{module}", __package__).STYLES[name]
    return style
