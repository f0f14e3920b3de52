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


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _are_positive(value: object) -> bool:
    return _is_positive(value) or (isinstance(value, list) and all(map(_is_positive, value)))


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
    "rope_theta": (_are_positive, "a positive number"),
    "text_config": (_is_object, "an object"),
    "vision_config": (_is_object, "an object"),
}


_POSITIVE = (
    *("factor", "original_max_position_embeddings", "rope_theta"),
    *("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"),
)
"""Numbers of a RoPE section, none of which means anything at 0 or below."""


def check_kinds(config: Mapping[str, Any], path: str = "") -> None:
    """Raise BadConfig, naming the key, where a field that is there has a value of no such kind."""
    for name, (is_kind, expected) in _KINDS.items():
        value = config.get(name)
        if value is not None and not is_kind(value):
            raise _wrong(path + name, value, expected)
    for name in ("rope_scaling", "rope_parameters"):
        _check_rope(config.get(name), f"{path}{name}.")
    for name in _NESTED:
        nested = config.get(name)
        if isinstance(nested, Mapping) and not path:
            check_kinds(nested, f"{name}.")


def _check_rope(section: object, path: str) -> None:
    """The numbers of a RoPE section, and of those inside it: some have one for each kind of
    layer."""
    if not isinstance(section, Mapping):
        return
    for name, value in section.items():
        if isinstance(value, Mapping):
            _check_rope(value, f"{path}{name}.")
        elif name in _POSITIVE and value is not None and not _is_positive(value):
            raise _wrong(path + name, value, "a positive number")


def _wrong(name: str, value: object, expected: str) -> BadConfig:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:59] + "…"
    return BadConfig(
        f"config.json: {name} is {shown}, not {expected}",
        "compare with the model's published config.json",
    )
