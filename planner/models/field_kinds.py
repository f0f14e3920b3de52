"""Kinds of value that a few fields have in every family: a file with another is refused by name.

Families look at the fields they need. These are fields that many pass over, and a value of
another kind there (a list for `model_type`, a text for `rope_scaling`) means that the file was
edited or cut: planning on would say nothing of it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BadConfig

_TORCH_DTYPE = re.compile(
    r"(torch\.)?(auto|half|float|double|bfloat16|u?int[1-9]\d?|(float|complex)\d+(_\w+)?)"
)
_NESTED = ("text_config", "language_config", "llm_config")


def _is_dtype(value: object) -> bool:
    return isinstance(value, str) and _TORCH_DTYPE.fullmatch(value) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numbers(value: object) -> bool:
    return _is_number(value) or (isinstance(value, list) and all(map(_is_number, value)))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


_KINDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "model_type": (_is_text, "a text"),
    "architectures": (_is_texts, "a list of texts"),
    "dtype": (_is_dtype, "a dtype such as bfloat16"),
    "torch_dtype": (_is_dtype, "a dtype such as bfloat16"),
    "rope_scaling": (_is_object, "an object"),
    "rope_parameters": (_is_object, "an object"),
    "rope_theta": (_is_numbers, "a number"),
    "text_config": (_is_object, "an object"),
    "vision_config": (_is_object, "an object"),
}


def check_kinds(config: Mapping[str, Any], path: str = "") -> None:
    """Raise BadConfig, naming the key, where a field that is there has a value of no such kind."""
    for name, (is_kind, expected) in _KINDS.items():
        value = config.get(name)
        if value is not None and not is_kind(value):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else shown[:59] + "…"
            raise BadConfig(
                f"config.json: {path}{name} is {shown}, not {expected}",
                "compare with the model's published config.json",
            )
    for name in _NESTED:
        nested = config.get(name)
        if isinstance(nested, Mapping) and not path:
            check_kinds(nested, f"{name}.")
