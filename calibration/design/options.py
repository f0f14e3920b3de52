"""What a calibration was asked for: what was typed, else what it was begun with, else defaults.

What makes rows comparable (tasks, contexts, items, seed, text, haystack) is kept beside them, so
that `--resume` alone goes on as it was begun. What is typed again replaces it, but for what rows
of one seed must share: scores on other items cannot be paired.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from ...planner.accuracy.calibrations import read_json
from ...planner.errors import BadInput
from ...planner.models.spec import ModelSpec
from ...planner.units import parse_tokens, split_tokens
from ..execution.device import check_name
from ..user_text import read_user_text

ASKED = "asked.json"
DEFAULT_MODEL = "recall"
"""Ships with this package: small enough for any machine."""
DEFAULT_TASKS = "needle-multikey,variables,arithmetic"
RUNS, ITEMS, TOLERANCE, SEED = 16, 32, 0.005, 0
LONGEST = {"cuda": 16384, "cpu": 1024}
"""Of the default contexts, by device: what keeps a calibration to minutes."""
STEP = {"cuda": 4, "cpu": 2}
"""How many times shorter the other default context is."""
MOST_TOKENS = 2**20
"""Of a prompt, where the model does not say for how many it was made."""
SHORTEST = 256
"""Prompts below which the default tasks have no room."""


@dataclass(frozen=True)
class Options:
    """What was typed; None where nothing was."""

    model: str | None
    runs: int | None
    minutes: float | None
    tasks: str | None
    contexts: str | None
    items: int | None
    tolerance: float | None
    seed: int | None
    text: Path | None
    haystack: Path | None
    resume: bool
    device: str | None
    offline: bool

    def check(self) -> None:
        """Raises BadInput for numbers that measure nothing, and for unknown devices."""
        for name, value in (("--runs", self.runs), ("--items", self.items)):
            if value is not None and value < 1:
                raise BadInput(f"{name} {value} measures nothing", f"{name} is 1 or more")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise BadInput(f"--minutes {self.minutes:g} is no time", "give minutes above 0")
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise BadInput(
                f"--tolerance {self.tolerance:g} is no error of a retention",
                "give a part of the score: 0.005",
            )
        check_name(self.device)


@dataclass(frozen=True)
class Asked:
    """A calibration's terms. `text` and `haystack` are the user's files, None for our own prose;
    `hashes` are of what they held."""

    runs: int
    tasks: str
    contexts: tuple[int, ...]
    items: int
    tolerance: float
    seed: int
    text: str | None
    haystack: str | None
    hashes: tuple[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What the calibration in `folder` was begun with; None where nothing is kept."""
        found = read_json(folder / ASKED)
        if found is None or set(found) != {field.name for field in fields(cls)}:
            return None
        return cls(
            **found | {"contexts": tuple(found["contexts"]), "hashes": tuple(found["hashes"])}
        )

    def to_text(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"


def settle(options: Options, spec: ModelSpec, device: str, begun: Asked | None) -> Asked:
    """The terms. Raises BadInput for what cannot be read, or rows of one seed do not share."""

    def choose(name: str, default: Any) -> Any:
        typed = getattr(options, name)
        if typed is not None:
            return str(typed) if isinstance(typed, Path) else typed
        return default if begun is None else getattr(begun, name)

    contexts = choose("contexts", default_contexts(spec, device))
    lengths = _parsed(contexts) if isinstance(contexts, str) else contexts
    most = spec.max_context or MOST_TOKENS
    if options.contexts is not None and max(lengths) > most:
        raise BadInput(
            f"--context {max(lengths)} is more than the {most:,} tokens {spec.name} was made for",
            f"give lengths of at most {most}",
            {"longest_context": most},
        )
    text, haystack = choose("text", None), choose("haystack", None)
    found = Asked(
        runs=choose("runs", RUNS),
        tasks=choose("tasks", DEFAULT_TASKS),
        contexts=lengths,
        items=choose("items", ITEMS),
        tolerance=choose("tolerance", TOLERANCE),
        seed=choose("seed", SEED),
        text=text,
        haystack=haystack,
        hashes=(_hash(text), _hash(haystack)),
    )
    if begun is not None and begun.seed == found.seed:
        for option, before, now in (
            ("--items", begun.items, found.items),
            ("--text", begun.hashes[0], found.hashes[0]),
            ("--haystack", begun.hashes[1], found.hashes[1]),
        ):
            if before != now:
                raise BadInput(
                    f"the rows so far were measured with another {option}, and cannot be compared",
                    f"leave {option} as it was, or measure anew beside them with another --seed",
                )
    return found


def default_contexts(spec: ModelSpec, device: str) -> tuple[int, ...]:
    """Two lengths, as long as the device makes bearable and the model allows: where retrieval
    breaks with length can be seen only at more than one."""
    longest = min(LONGEST[device], spec.max_context or LONGEST[device])
    shorter = longest // STEP[device]
    return (shorter, longest) if shorter >= SHORTEST else (longest,)


def _parsed(text: str) -> tuple[int, ...]:
    return tuple(sorted({parse_tokens(part) for part in split_tokens(text)}))


def _hash(path: str | None) -> str:
    """Of a file's content; empty for none. Raises BadInput where it cannot be read."""
    if path is None:
        return ""
    return sha256(read_user_text(path).encode()).hexdigest()[:16]
