"""Coefficients that were measured on this machine's GPU; they replace the shipped ones.

`<home>/hardware/<gpu>.json` is written by `kvpareto calibrate` (calibration/fit/hardware/gpu.py)
from runs on that GPU and read here:

    {"schema": 1, "gpu": "NVIDIA H200", "runs": 48,
     "engines": {"kvpareto": {"coefficients": {…}, "there": {"kind": …, "low": {…}, "high": {…}}}},
     "memory": {"context": [expected, low, high], "slack": [expected, low, high]}}

`engines` has the form of profiles/hardware/latency.json; `context` is in bytes, `slack` in parts of
what comes and goes (planner/memory/overhead.py); either may be missing. Where there is no file, a
plan looks at the disk once.
"""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..models.finite_json import read_json
from ..user_data import ENVIRONMENT, home

FOLDER = "hardware"


def path_of(gpu: str) -> Path:
    """Where what was measured of this GPU is kept, whether there is anything or not."""
    return home() / FOLDER / (re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") + ".json")


def measured_on(gpu: str) -> dict[str, Any]:
    """The document of this GPU; an empty one where it was not measured here.

    Read once a process (`forget` has it read again). Raises BadInput for a file that cannot be
    used: a plan must not fall back unsaid.
    """
    return _load(gpu, os.environ.get(ENVIRONMENT), os.environ.get("XDG_DATA_HOME"))


@lru_cache(maxsize=32)
def _load(gpu: str, *where: str | None) -> dict[str, Any]:
    """`where` is what home() depends on: asking for the path itself takes longer than all else."""
    del where
    try:
        path = path_of(gpu)
        if not path.exists():
            return {}
    except (OSError, BadInput):  # no home, or one that this user may not look into
        return {}
    entry = read_json(path)
    if entry is not None and entry.get("schema") == 1 and entry.get("gpu") == gpu:
        return entry
    raise damaged(path)


def forget() -> None:
    """Look again at the next question: a file was written."""
    _load.cache_clear()


def damaged(path: Path) -> BadInput:
    """The error of a file that does not say what it should."""
    return BadInput(
        f"what was measured of this GPU, in {path}, is damaged",
        "`kvpareto calibrate -m MODEL --resume` fits it again; or move the file away",
    )
