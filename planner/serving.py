"""What a server of many users is started with, what each of its cards then holds, and for whom.

For engines that fill a part of the device with a cache and take sequences as there is room.
"""

import re
import shlex
from typing import Self

from .errors import BadInput
from .light_dataclass import dataclass
from .units import format_count
from .workload import Workload

Sizes = tuple[int, int, int]
"""An expected value, its low and its high end."""
Seconds = tuple[float, float, float]
Flags = tuple[tuple[str, str | int | float | bool], ...]


_SIZE = re.compile(r"(tp|pp|dp)\s*=?\s*(\d{1,4})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parallel:
    """Sizes that share a model among cards; `experts`: whole experts are spread over the ranks."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    experts: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """`tp4`, `tp2,pp2`, `tp=2,dp=2,ep`. Raises BadInput."""
        sizes = {"tp": 1, "pp": 1, "dp": 1}
        seen: set[str] = set()
        for part in text.lower().split(","):
            word = part.strip()
            match = _SIZE.fullmatch(word)
            name = "ep" if word == "ep" else match[1].lower() if match else ""
            if not name or name in seen or (match and not 1 <= int(match[2]) <= 64):
                raise BadInput(
                    f"no way to share a model among cards: --parallel {text!r}",
                    "write tp4, tp2,pp2 or tp2,dp4,ep: tensor, pipeline, data, expert parallel",
                )
            seen.add(name)
            if match:
                sizes[name] = int(match[2])
        return cls(sizes["tp"], sizes["pp"], sizes["dp"], "ep" in seen)

    @property
    def cards(self) -> int:
        return self.tensor * self.pipeline * self.data

    def __str__(self) -> str:
        named = (("tp", self.tensor), ("pp", self.pipeline), ("dp", self.data))
        words = [f"{name}{size}" for name, size in named if size > 1]
        return ",".join([*words, *["ep"] * self.experts]) or "tp1"


@dataclass(frozen=True, slots=True)
class CardTerms:
    """Bytes of one card. The engine may take `requested` of `memory`: weights, the peak of its
    profiled step, what lies outside torch, graphs; the rest is `cache`. Beside it lie the driver's
    `context` and, in engines that do not count them, the graphs (`beside`)."""

    gpu: str
    memory: int
    requested: int
    weights: int
    activation: Sizes
    other: Sizes
    graphs: Sizes
    cache: Sizes
    context: Sizes
    beside: Sizes


@dataclass(frozen=True, slots=True)
class Serving:
    """`starts`: even at the low end of the cache; `may_start`: at the high end.

    `longest`: the largest length of a sequence with which it starts. `cache_tokens`: tokens that
    the engine prints as its cache's size, of all replicas. `users` are asked for; `at_once_mean`:
    how many sequences of the asked lengths all replicas hold at the cache's low end;
    `at_once_worst`: how many if all are of the longest.
    """

    version: str
    starts: bool
    may_start: bool
    users: int
    max_model_len: int
    longest: int
    cache_tokens: Sizes
    at_once_mean: int
    at_once_worst: int
    flags: Flags
    """Every flag of the command without its dashes, with its value."""
    command: str
    checkpoint: str
    """What to load, in words, where it is not the model as named."""
    cards: tuple[CardTerms, ...]
    parallel: Parallel
    speed: tuple[Seconds, Seconds] | None = None
    """Tokens a second of all users together, and seconds until the first token of one prompt on an
    idle server."""
    speed_kind: str = ""
    measured: bool = False
    """Whether the constants were measured on cards of this kind; else they are an estimate."""
    environment: tuple[tuple[str, str], ...] = ()

    def who_waits(self, workload: Workload, planned: str) -> str | None:
        """What to say where not all users fit if all have the longest prompt; `planned`: what was
        sized for their mean."""
        if not workload.lengths or self.at_once_worst >= workload.batch:
            return None
        return (
            f"if more than {format_count(self.at_once_worst, 'sequence')} of "
            f"{workload.context:,} tokens come together, the others wait: {planned} is planned "
            "for the mean length"
        )


def command_line(program: tuple[str, ...], flags: Flags, first: str = "model") -> str:
    """The line to type of these flags; `first` is an argument by its place."""
    words = list(program)
    for name, value in flags:
        if name == first:
            words.append(str(value))
        elif value is True:
            words.append("--" + name.replace("_", "-"))
        else:
            words += ["--" + name.replace("_", "-"), _text(value)]
    return shlex.join(words)


def _text(value: str | int | float | bool) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
