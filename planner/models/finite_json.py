"""JSON of profiles and calibrations: objects of finite numbers, read to a limit."""

import json
from pathlib import Path
from typing import Any

from ..errors import BadConfig
from .untrusted_json import read_capped

MOST_BYTES = 256 * 2**20
"""Of a file of a profile that is read whole: of rows, about a hundred thousand."""


def read_json(path: Path) -> dict[str, Any] | None:
    """An object from a regular file; None where there is none that can be read, or where it holds
    a number that is not finite."""
    try:
        content = json.loads(read_capped(path, MOST_BYTES), parse_constant=_refuse)
    except (BadConfig, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _refuse(constant: str) -> float:
    raise ValueError(constant)
