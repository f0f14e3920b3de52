"""Known model types that an unknown one resembles, by its name or its class.

A new name is often a known family's with a word added or left out (`gemma4_unified` is Gemma 4,
`X_text` the text model of X), and where `model_type` is missing or nobody's, the class that
`architectures` names says whose the file is.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from ..registry import READER_MODULES, STYLE_ALIASES, STYLE_MODULES

_SUFFIXES = (
    "unified",
    "text",
    "vl",
    "moe",
    "vision",
    "omni",
    "audio",
    "thinker",
    "lm",
    "language",
    "model",
    "causal",
    "chat",
    "instruct",
    "base",
)
_CLASSES = {
    "hunyuandensev1": "hunyuan_v1_dense",
    "hunyuanmoev1": "hunyuan_v1_moe",
    "inkling": "inkling_mm_model",
    "minimaxm3sparse": "minimax_m3_vl",
}
"""Stems of transformers' own classes that are spelled otherwise than their model types."""
_CLASS_ENDINGS = (
    "ForConditionalGeneration",
    "ForImageTextToText",
    "ForCausalLM",
    "LMHeadModel",
    "Model",
)


def similar_types(model_type: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Known model types that the file may be of, the likeliest first."""
    seen = {model_type}
    for name in (*_by_name(model_type), *_by_class(config)):
        if name not in seen:
            seen.add(name)
            yield name


def type_of_class(config: Mapping[str, Any]) -> str | None:
    """The known model type whose class `architectures` names first."""
    return next(_by_class(config), None)


def class_stem(config: Mapping[str, Any]) -> str:
    """The first class of `architectures` without what it is for, small: `grok1`; "" for none."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else ""
    if not isinstance(first, str):
        return ""
    for ending in _CLASS_ENDINGS:
        if first.endswith(ending):
            return _plain(first.removesuffix(ending))
    return _plain(first)


def _by_class(config: Mapping[str, Any]) -> Iterator[str]:
    model_type = _known().get(class_stem(config))
    if model_type is not None:
        yield model_type


def _by_name(model_type: str) -> Iterator[str]:
    known, name = _known(), model_type
    while True:
        for candidate in (name, f"{name}_text"):
            named = known.get(_plain(candidate))
            if named is not None:
                yield named
        stem, _, last = name.replace("-", "_").rpartition("_")
        if not stem or last.lower() not in _SUFFIXES:
            return
        name = stem


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    names = (*STYLE_ALIASES, *STYLE_MODULES, *READER_MODULES)
    return {_plain(name): name for name in names} | _CLASSES


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
