"""Where a config.json says that its checkpoint is quantized, if it does.

Apart from what reads it (quantization_config.py): most models have none, and their plans start
without the readers.
"""

import re
from collections.abc import Mapping
from typing import Any

from ...errors import BadConfig

HINT = "give the original, unquantized model, and choose w8 or w4 for it"

_SECTIONS = ("quantization_config", "compression_config", "quantization")
_SPEAKS_OF_IT = re.compile(r"quant(?:i[sz]|_|$)|compression", re.IGNORECASE)


def find_section(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object that says how the weights are quantized, wherever config.json has it.

    Raises BadConfig for two that differ, and for a key that speaks of quantization and is not
    understood: it is never passed over.
    """
    nested = (config.get(name) for name in ("text_config", "llm_config", "language_config"))
    sections: dict[str, Mapping[str, Any]] = {}
    for place in (config, *nested):
        if not isinstance(place, Mapping):
            continue
        for name, value in place.items():
            if not isinstance(name, str) or not _SPEAKS_OF_IT.match(name) or says_no(value):
                continue
            if name not in _SECTIONS:
                raise BadConfig(f"config.json: {name[:60]} is a quantization that is unknown", HINT)
            if not isinstance(value, Mapping):
                raise BadConfig(f"config.json: {name} is not an object", HINT)
            sections.setdefault(name, value)
    if not sections:
        return None
    (name, first), *others = sections.items()
    for other, section in others:
        if section != first:
            raise BadConfig(f"config.json: {name} and {other} say different things", HINT)
    return first


def says_no(value: object) -> bool:
    """Whether a key that speaks of quantization says that there is none."""
    return not value or (isinstance(value, str) and value.lower() in ("none", "no", "false"))
