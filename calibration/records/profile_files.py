"""How a profile's files come onto the disk: whole or not at all, and to stay.

A plan may read a profile while a calibration rewrites it, and the machine may lose power at any
moment. So a file is written beside its place, forced to the disk, and renamed; the rename is on the
disk when the folder is. Rows are appended instead: record_file.py.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...planner.whole_file import replace, writing


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all; it is on the disk when this returns. A link stays a link,
    to the new text. Raises BadInput, which names it, and leaves what was there."""
    with writing(path):
        replace(Path(os.path.realpath(path)), text.encode("utf-8"))


def to_text(payload: Mapping[str, Any]) -> str:
    """Coefficients as they are stored: a line for each key of the first two levels. Raises
    ValueError for a number that is not finite."""
    lines = []
    for key, value in payload.items():
        if isinstance(value, Mapping):
            inner = ",\n".join(f"  {json.dumps(k)}: {_json(v)}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {_json(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
