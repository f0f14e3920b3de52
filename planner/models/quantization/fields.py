"""Checked reading of `quantization_config`: what is absent, of another type, or under a name that
no tool gives it is one line that names it. A field that is passed over would change the bytes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ...errors import BadConfig
from ..read_keys import ReadKeys
from .section import HINT

Section = Mapping[str, Any]
PUBLISHED = "compare with the model's published config.json"


def whole(
    section: Section, name: str, default: int | None = None, choices: Sequence[int] = ()
) -> int:
    """A whole number of `section`, which has to be there where there is no `default`; `choices`
    are the values it may take, if given. Raises BadConfig."""
    value = section.get(name)
    value = default if value is None else value
    if value is None:
        raise BadConfig(f"quantization_config has no {name}", PUBLISHED)
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= 2**20:
        raise BadConfig(f"quantization_config: {name} is {_shown(value)}, not a whole number", HINT)
    if choices and value not in choices:
        known = ", ".join(map(str, choices))
        raise BadConfig(f"quantization_config: {name} {value} is not one of {known}", HINT)
    return value


def group_of(section: Section, default: int, name: str = "group_size") -> int:
    """Weights that share a scale, -1 for a whole row. Raises BadConfig, also for groups of 0."""
    group = whole(section, name, default)
    if group == 0:
        raise BadConfig(
            f"quantization_config: {name} is 0: a group has weights, and -1 is a whole row",
            PUBLISHED,
        )
    return group


def flag(section: Section, name: str, default: bool = False) -> bool:
    """Whether `section` says so. Raises BadConfig for what is neither true nor false."""
    value = section.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadConfig(f"quantization_config: {name} is {_shown(value)}, not true or false", HINT)
    return value


def word(section: Section, name: str, default: str, choices: Collection[str]) -> str:
    """One of `choices`. Raises BadConfig."""
    value = section.get(name)
    value = default if value is None or value == "" else value
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(choices)
        raise BadConfig(f"quantization_config: {name} is {_shown(value)}, not one of {known}", HINT)
    return value


def inner(section: Section, name: str) -> Section:
    """The object `name`. Raises BadConfig where it is absent, empty or something else."""
    value = section.get(name)
    if value is None:
        raise BadConfig(f"quantization_config has no {name}", PUBLISHED)
    if not isinstance(value, Mapping):
        raise BadConfig(f"quantization_config: {name} is {_shown(value)}, not an object", HINT)
    if not value:
        raise BadConfig(f"quantization_config: {name} is empty", PUBLISHED)
    return value


def left_out(section: ReadKeys, fields: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The first names of those `fields` that a part was asked for and has under none of theirs."""
    return tuple(
        names[0]
        for names in fields
        if any(
            names[0] in part.read | part.absent and all(part.peek(name) is None for name in names)
            for part in _asked(section)
        )
    )


def check_names(section: ReadKeys) -> None:
    """Raise BadConfig for a key that nobody asked for and that is one slip of the pen from one
    which was asked for and is absent."""
    for part in _asked(section):
        for key in part:
            if key in part.read:
                continue
            for name in part.absent:
                if _one_slip(key, name):
                    raise BadConfig(
                        f"quantization_config: {key[:40]!r} is not a field that is known",
                        f"did you mean {name}?",
                    )


def _asked(section: ReadKeys) -> Iterator[ReadKeys]:
    """The section, and those inside it that somebody asked something."""
    yield section
    for key in section:
        value = section.peek(key)
        if isinstance(value, ReadKeys):
            yield from _asked(value)


def _one_slip(key: str, name: str) -> bool:
    """Whether two names differ in one letter, in two that changed places, or in `_` and `-`; names
    of other numbers (load_in_4bit, load_in_8bit) are no slips of each other."""
    a, b = (one.lower().replace("_", "").replace("-", "") for one in (key, name))
    if [c for c in a if c.isdigit()] != [c for c in b if c.isdigit()]:
        return False
    if a == b or min(len(a), len(b)) < 3 or abs(len(a) - len(b)) > 1:
        return a == b
    if len(a) != len(b):
        short, long = sorted((a, b), key=len)
        return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))
    differ = [i for i in range(len(a)) if a[i] != b[i]]
    if len(differ) == 2 and differ[1] == differ[0] + 1:
        i, j = differ
        return a[i] == b[j] and a[j] == b[i]
    return len(differ) == 1


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"
