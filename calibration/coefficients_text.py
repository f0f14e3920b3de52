"""How fitted coefficients are stored: JSON that a person can compare line by line.

Apart from the fit, so that importing a calibration needs none of the fit's libraries.
"""

import json
from collections.abc import Mapping
from typing import Any


def to_text(payload: Mapping[str, Any]) -> str:
    """The JSON as it is stored: a line for each key of the first two levels."""
    lines = []
    for key, value in payload.items():
        if isinstance(value, Mapping):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
