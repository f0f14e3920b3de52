"""What a calibration was asked for: what was typed, else what it was begun with, else defaults.

What makes rows comparable (tasks, contexts, items, seed, text, haystack) is kept beside them, so
that `--resume` alone goes on as it was begun. What is typed again replaces it, but for what rows
of one seed must share: scores on other items cannot be paired.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from ...planner.errors import BadInput
from ...planner.models.finite_json import read_json
from ...planner.models.spec import ModelSpec
from ...planner.units import parse_tokens, split_tokens
from ..execution.device import check_name
from ..records.record_file import DIVERGENCE, HARNESS, LAYERS, Record
from .user_text import read_user_text

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
LONGEST_PROMPT = 2**24
"""Beyond every model's context; a text of that length takes minutes to tokenize."""
Terms = tuple[int, str | None, str | None, str, str]
"""What rows of one seed share: items, the files of text and haystack, and their hashes."""


@dataclass(frozen=True)
class CalibrationOptions:
    """What was typed; None where nothing was."""

    model: str | None = None
    runs: int | None = None
    minutes: float | None = None
    tasks: str | None = None
    context: str | None = None
    items: int | None = None
    tolerance: float | None = None
    seed: int | None = None
    text: Path | None = None
    haystack: Path | None = None
    resume: bool = False
    device: str | None = None
    offline: bool = False
    trust_remote_code: bool = False
    ray: str | None = None
    """Address of a Ray cluster to measure on, "local" for one of this machine; None: no cluster."""
    affine: bool = False
    """Whether affine maps are learnt before anything is measured."""

    def check(self) -> None:
        """Raises BadInput for numbers that measure nothing, and for unknown devices."""
        for name, value in (("--runs", self.runs), ("--items", self.items)):
            if value is not None and value < 1:
                raise BadInput(f"{name} {value} measures nothing", f"{name} is 1 or more")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise BadInput(f"--seed {self.seed} is no seed", "--seed is 0 or more, below 2^63")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise BadInput(
                f"--tolerance {self.tolerance:g} is no expected error", "0.005 is half a percent"
            )
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise BadInput(f"--minutes {self.minutes:g} is no time", "give minutes above 0")
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise BadInput(
                f"--tolerance {self.tolerance:g} is no error of a retention",
                "give a part of the score: 0.005",
            )
        if self.affine and self.ray is not None:
            raise BadInput(
                "affine maps are learnt on this machine, not on a Ray cluster",
                "calibrate --affine without --ray first, then --resume --ray",
            )
        check_name(self.device)


@dataclass(frozen=True)
class CalibrationSettings:
    """A calibration's terms. `text` and `haystack` are the user's files, None for our own prose;
    `hashes` are of what they held. `others` are the terms of seeds that were measured before."""

    runs: int
    tasks: str
    contexts: tuple[int, ...]
    items: int
    tolerance: float
    seed: int
    text: str | None
    haystack: str | None
    hashes: tuple[str, str]
    others: Mapping[int, Terms] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What the calibration in `folder` was begun with; None where nothing usable is kept."""
        saved = read_json(folder / ASKED)
        return None if saved is None else cls.of(saved)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self | None:
        """What `to_text` wrote, parsed; None for anything else."""
        document = {"others": {}, **document}
        if set(document) != {one.name for one in fields(cls)}:
            return None
        try:
            others = {int(seed): _terms(*terms) for seed, terms in document["others"].items()}
            settings = cls(
                **document
                | {
                    "contexts": tuple(document["contexts"]),
                    "hashes": tuple(document["hashes"]),
                    "others": others,
                }
            )
            _terms(*settings.terms)
        except (TypeError, ValueError, AttributeError):
            return None
        whole = (settings.runs, settings.seed, *settings.contexts, *others)
        sound = (
            all(type(value) is int and 0 <= value < 2**63 for value in whole)
            and settings.runs > 0
            and all(0 < context <= LONGEST_PROMPT for context in settings.contexts)
            and len(settings.contexts) > 0
            and isinstance(settings.tasks, str)
            and type(settings.tolerance) in (int, float)
            and 0 <= settings.tolerance < math.inf
        )
        return settings if sound else None

    @property
    def terms(self) -> Terms:
        return self.items, self.text, self.haystack, *self.hashes

    @property
    def by_seed(self) -> dict[int, Terms]:
        """The terms of every seed that was measured."""
        return {**self.others, self.seed: self.terms}

    def to_text(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"


def settle(
    options: CalibrationOptions, spec: ModelSpec, device: str, begun: CalibrationSettings | None
) -> CalibrationSettings:
    """The terms. Raises BadInput for what cannot be read, or rows of one seed do not share."""

    def choose(name: str, default: Any) -> Any:
        typed = getattr(options, name)
        if typed is not None:
            return str(typed) if isinstance(typed, Path) else typed
        return default if begun is None else getattr(begun, name)

    seed = choose("seed", SEED)
    known = {} if begun is None else begun.by_seed
    if begun is not None and seed in known:  # as the rows of this seed were measured
        items, text, haystack, *hashes = known[seed]
        begun = replace(
            begun, items=items, text=text, haystack=haystack, hashes=(hashes[0], hashes[1])
        )
    if options.context is not None:
        lengths = _parsed(options.context)
    else:
        lengths = default_contexts(spec, device) if begun is None else begun.contexts
    most = spec.max_context or MOST_TOKENS
    if options.context is not None and max(lengths) > most:
        raise BadInput(
            f"--context {max(lengths)} is more than the {most:,} tokens {spec.name} was made for",
            f"give lengths of at most {most}",
            {"longest_context": most},
        )
    text, haystack = choose("text", None), choose("haystack", None)
    settings = CalibrationSettings(
        runs=choose("runs", RUNS),
        tasks=choose("tasks", DEFAULT_TASKS),
        contexts=lengths,
        items=choose("items", ITEMS),
        tolerance=choose("tolerance", TOLERANCE),
        seed=seed,
        text=text,
        haystack=haystack,
        hashes=(_hash(text), _hash(haystack)),
        others={other: terms for other, terms in known.items() if other != seed},
    )
    if seed in known:
        before = known[seed]
        for option, place in (("--items", 0), ("--text", 3), ("--haystack", 4)):
            if before[place] != settings.terms[place]:
                raise _other(option)
    return settings


def check_comparable(
    asked: CalibrationSettings, begun: CalibrationSettings | None, records: Sequence[Record]
) -> None:
    """Raise BadInput where rows of this seed are there and are not known to be of these items and
    texts: their scores would be paired with those of other questions.

    Rows that no terms are kept of are `verify`'s, which are of our own prose, unless a divergence
    is among them: then they are a calibration's, and what it was asked is lost.
    """
    rows = [row for row in records if row.seed == asked.seed and row.items and row.task != LAYERS]
    if begun is None or asked.seed not in begun.by_seed:
        if any(row.task == DIVERGENCE for row in rows):
            raise BadInput(
                f"what the rows of seed {asked.seed} were measured on is not known: {ASKED} is "
                "gone",
                "measure with another --seed, or move the folder away",
            )
        if rows and asked.hashes[1]:
            raise _other("--haystack")
    for row in rows:
        whole = row.task != DIVERGENCE and not row.task.startswith(HARNESS) and row.reason is None
        if whole and row.context in asked.contexts and len(row.items) != asked.items:
            raise _other("--items")


def asks_own_prose(folder: Path, records: Sequence[Record], seed: int, items: int | None) -> bool:
    """Whether items of our own prose may be compared with the rows of a seed: none are there, or
    they are of our prose too; and, unless `items` is None, there are as many of each task."""
    begun = CalibrationSettings.read(folder)
    terms = None if begun is None else begun.by_seed.get(seed)
    if terms is None:
        return not any(row.seed == seed and row.task == DIVERGENCE for row in records)
    return not terms[4] and items in (None, terms[0])


def _other(option: str) -> BadInput:
    return BadInput(
        f"the rows so far were measured with another {option}, and cannot be compared",
        f"keep {option} as it was, or measure with another --seed",
    )


def _terms(
    items: int, text: str | None, haystack: str | None, of_text: str, of_haystack: str
) -> Terms:
    """Raises TypeError for what are no terms."""
    paths = all(isinstance(path, str | None) for path in (text, haystack))
    hashes = all(isinstance(digest, str) for digest in (of_text, of_haystack))
    if type(items) is not int or items < 1 or not paths or not hashes:
        raise TypeError("no terms")
    return items, text, haystack, of_text, of_haystack


def default_contexts(spec: ModelSpec, device: str) -> tuple[int, ...]:
    """Two lengths, as long as the device makes bearable and the model allows: where retrieval
    breaks with length can be seen only at more than one."""
    longest = min(LONGEST[device], spec.max_context or LONGEST[device])
    shorter = longest // STEP[device]
    return (shorter, longest) if shorter >= SHORTEST else (longest,)


def _parsed(text: str) -> tuple[int, ...]:
    contexts = tuple(sorted({parse_tokens(part) for part in split_tokens(text)}))
    if max(contexts) > LONGEST_PROMPT:
        raise BadInput(
            f"--context {max(contexts):,} is longer than any prompt that can be made",
            f"at most {LONGEST_PROMPT:,} tokens; what the model is used with is worth measuring",
        )
    return contexts


def _hash(path: str | None) -> str:
    """Of a file's content; empty for none. Raises BadInput where it cannot be read."""
    if path is None:
        return ""
    return sha256(read_user_text(path).encode()).hexdigest()[:16]
