"""Words of a Python call held to their types: what fits is taken, the rest is one BadInput.

Texts may be numbers where the option counts something: bytes, tokens, sequences. A number that is
counted may be a float of a whole value (16e9 bytes). A path may be a text or a Path.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args

from .errors import BadInput, one_line

_Options = TypeVar("_Options")
_TEXTS = {
    "budget": "{}B", "context": "{}", "output": "{}", "batch": "{}", "gpu": "{}",
}  # fmt: skip
"""Words that are texts below, and how a whole number is written as one."""
_COMMANDS_ONLY = {
    "json": "a call returns what the command prints with --json: leave it out",
    "save": "a call returns the document that --save writes: json.dump writes it too",
}
"""Options of commands that a call has no use for, and what it does instead."""
_SAID = {str: "a text", int: "a whole number", float: "a number", bool: "True or False",
         Path: "a path", NoneType: "None"}  # fmt: skip


def typed_words(words: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`words` as values of the types that `known` names. Raises BadInput for a word that is none of
    `known`'s (it would be left out in silence) and for a value of another type."""
    for word in words:
        if word not in known:
            near = get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"words are {', '.join(known)}"
            raise BadInput(f"unknown word: {word}", _COMMANDS_ONLY.get(word, hint))
    return {word: _typed(word, value, known[word]) for word, value in words.items()}


def typed_model(model: object, *, name: str = "model") -> str:
    """The model as a text: a Path is one of this disk, never a name. Raises BadInput."""
    if isinstance(model, os.PathLike):
        path = os.fspath(model)
        if isinstance(path, str):
            return path if path.startswith(("/", "~")) else os.path.join(".", path)
    return str(_typed(name, model, str))


def typed_options(kind: type[_Options], model: object, words: Mapping[str, Any]) -> _Options:
    """A dataclass of options, with a `model`, of what a call was given. Raises BadInput for words
    that it lacks and for other types."""
    known = {one.name: one.type for one in fields(cast(Any, kind)) if one.name != "model"}
    named = None if model is None else typed_model(model)
    return kind(model=named, **typed_words(words, known))  # type: ignore[call-arg]


def typed_text(word: str, value: object) -> str:
    """A text that a call was given. Raises BadInput."""
    return str(_typed(word, value, str))


def typed_path(word: str, value: object) -> Path:
    """A path that a call was given, as a text or a Path. Raises BadInput."""
    return Path(_typed(word, value, Path))


def _typed(word: str, value: Any, annotation: Any) -> Any:
    """`value` where it is of one of the types, or means one. Raises BadInput."""
    kinds = get_args(annotation) or (annotation,)
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif isinstance(value, str):
        if str in kinds:
            return value
        if Path in kinds:
            return Path(value)
    elif isinstance(value, Path):
        if Path in kinds:
            return value
    elif isinstance(value, Real):
        if float in kinds:
            return float(value)
        whole = _whole(value)
        if whole is not None and int in kinds:
            return whole
        if whole is not None and word in _TEXTS and str in kinds:
            return _TEXTS[word].format(whole)
    said = [_SAID.get(kind, str(kind)) for kind in kinds]
    if word in _TEXTS and str in kinds and int not in kinds:
        said.insert(1, _SAID[int])
    raise BadInput(f"not a value for {word}: {_shown(value)}", f"{word} is {' or '.join(said)}")


def _whole(value: Any) -> int | None:
    """The whole number that `value` is, None for any other."""
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return int(number) if number.is_integer() else None


def _shown(value: object) -> str:
    """`value` and its type in a few words; a value may fail to say what it is."""
    try:
        text = one_line(repr(value), 60)
    except Exception:
        text = "?"
    return f"{text} ({type(value).__name__})"
