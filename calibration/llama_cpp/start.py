"""Starting llama.cpp with the settings of a plan, and reading what it says."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...planner.engines.llama_cpp.run_settings import RunSettings
from ...planner.errors import BadInput, MissingDependency
from .breakdown import Breakdown, read_breakdown

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 600.0
"""Seconds after which a run is given up."""


@dataclass(frozen=True)
class Reading:
    """What one run printed and answered; seconds are those that llama.cpp counts itself."""

    breakdown: Breakdown
    ttft: float | None
    tpot: float | None
    texts: tuple[str, ...]
    version: str
    log: str


def run_library(
    path: Path,
    run: RunSettings,
    prompts: Sequence[list[int] | str] = (),
    predict: int = 1,
    batch: int | None = None,
    gpu_layers: int = -1,
    patience: float = PATIENCE,
) -> Reading:
    """Load `path` with these settings, answer the prompts, and read the log.

    Raises MissingDependency without xllamacpp, BadInput where llama.cpp does not take the file.
    """
    if find_spec("xllamacpp") is None:
        raise MissingDependency(
            "llama.cpp is not here: xllamacpp is missing", 'pip install "kvpareto[llamacpp]"'
        )
    settings = {
        "path": str(path),
        "context": run.total_context,
        "sequences": run.sequences,
        "micro_batch": run.micro_batch,
        "batch": batch or max(run.micro_batch, 2048),
        "keys": run.keys,
        "values": run.values,
        "flash": run.flash,
        "swa_full": run.swa_full,
        "unified": run.unified,
        "gpu_layers": gpu_layers,
        "prompts": list(prompts),
        "predict": predict,
    }
    command = [sys.executable, str(CHILD), json.dumps(settings)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=patience
        )
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"llama.cpp did not answer within {patience:.0f} seconds", "ask for a shorter context"
        ) from None
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not last[0].startswith("{"):
        raise BadInput(
            f"llama.cpp did not run {path.name}: {_last_error(done.stderr)}",
            "see whether the file is whole, and whether it fits in memory",
        )
    answer = json.loads(last[0])
    return _reading(answer["answers"], answer["version"], done.stderr)


def _reading(answers: Sequence[dict[str, Any]], version: str, log: str) -> Reading:
    timings = [a["timings"] for a in answers if "timings" in a]
    first = [t["prompt_ms"] / 1000 for t in timings]
    later = [t["predicted_per_token_ms"] / 1000 for t in timings if t["predicted_n"] > 1]
    return Reading(
        breakdown=read_breakdown(log),
        ttft=sorted(first)[len(first) // 2] if first else None,
        tpot=sorted(later)[len(later) // 2] if later else None,
        texts=tuple(a["choices"][0]["text"] for a in answers if a.get("choices")),
        version=version,
        log=log,
    )


def _last_error(log: str) -> str:
    lines = [line for line in log.splitlines() if "error" in line.lower() or "failed" in line]
    return (lines or log.splitlines() or ["it said nothing"])[-1].split(" E ", 1)[-1].strip()
