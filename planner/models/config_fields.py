"""Checked reading of config.json: the only way any family looks at a model's fields.

A field is taken from the file under its own name or the family's older spelling; else from the
defaults that transformers' configuration class gives it, with a note for the reader if it is a
size; else from what the caller derives it from; else it is an error that names it. Types and
limits are checked here, so that no configuration, however broken, gets further.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadConfig
from .read_keys import ReadKeys

MAX_SIZE = 2**27  # no width, vocabulary or head count is near it: a guard against nonsense
MAX_LAYERS = 2048
MAX_LIST = 4096

_REQUIRED: Any = object()
_MISSING: Any = object()


class Fields:
    """A section of a config.json, its family's spellings and defaults, and notes for the reader.

    `aliases` maps a field's standard name to the family's own, and is read both ways; `defaults`
    are the values that transformers' configuration class gives to absent fields.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        *,
        kind: str = "",
        path: str = "",
        aliases: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self.raw = raw
        self.kind = kind
        self.path = path
        self.aliases = dict(aliases or {})
        self.aliases.update({older: name for name, older in self.aliases.items()})
        self.defaults = defaults or {}
        self.notes: list[str] = notes if notes is not None else []

    def changed(self, **values: Any) -> "Fields":
        """The section with other values; what is read of it counts as read of this one."""
        raw = self.raw
        return Fields(
            raw.changed(**values) if isinstance(raw, ReadKeys) else {**raw, **values},
            kind=self.kind,
            path=self.path,
            aliases=self.aliases,
            defaults=self.defaults,
            notes=self.notes,
        )

    def note(self, text: str) -> None:
        """Add a visible warning, once."""
        if text not in self.notes:
            self.notes.append(text)

    def has(self, name: str) -> bool:
        """Whether the file itself gives the field a value."""
        return self._raw(name) not in (_MISSING, None)

    def names(self, name: str) -> bool:
        """Whether the file mentions the field at all, even as null."""
        return self._raw(name) is not _MISSING

    def count(
        self, name: str, default: Any = _REQUIRED, *, low: int = 1, high: int = MAX_SIZE
    ) -> int:
        """A whole number. Raises BadConfig where it is absent without a default, or no number."""
        value = self._size(name, default)
        return self._whole(name, value, low, high)

    def optional_count(self, name: str, *, low: int = 1, high: int = MAX_SIZE) -> int | None:
        """A whole number, or None where the file says null or nobody says anything."""
        value = self._value(name)
        if value in (_MISSING, None):
            return None
        if not self.names(name):
            self._note_default(name, value)
        return self._whole(name, value, low, high)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._value(name)
        if value in (_MISSING, None):
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def number(self, name: str, default: float | None = None) -> float | None:
        value = self._value(name)
        if value in (_MISSING, None):
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, value, "a number")
        if abs(value) > 1e30 or math.isnan(value):  # abs first: an int may be too long for a float
            raise self.wrong(name, value, "a finite number")
        return float(value)

    def text(self, name: str, default: str | None = None) -> str | None:
        value = self._value(name)
        if value in (_MISSING, None):
            return default
        if not isinstance(value, str) or len(value) > 200:
            raise self.wrong(name, value, "a short text")
        return value

    def texts(self, name: str, length: int | None = None) -> tuple[str, ...] | None:
        """A list of texts of the given length, or None."""
        items = self._list(name, length)
        if items is None:
            return None
        if not all(isinstance(item, str) for item in items):
            raise self.wrong(name, items, "a list of texts")
        return tuple(items)

    def counts(
        self, name: str, length: int | None = None, *, low: int = 0, high: int = MAX_SIZE
    ) -> tuple[int, ...] | None:
        """A list of whole numbers of the given length, or None."""
        items = self._list(name, length)
        if items is None:
            return None
        return tuple(self._whole(name, item, low, high) for item in items)

    def count_per_layer(
        self, name: str, layers: int, default: Any = _REQUIRED, *, low: int = 0
    ) -> tuple[int, ...]:
        """One number for every layer: a list of them, or a single one for all."""
        if isinstance(self._value(name), list):
            return self.counts(name, layers, low=low) or ()
        return (self.count(name, default, low=low),) * layers

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        value = self._value(name)
        if value in (_MISSING, None):
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, value, "an object")
        return value

    def layers(self, name: str = "num_hidden_layers") -> int:
        return self.count(name, high=MAX_LAYERS)

    def wrong(self, name: str, value: object, expected: str) -> BadConfig:
        """The error for a field of another kind, under the name that the file gives it."""
        alias = self.aliases.get(name)
        if alias is not None and name not in self.raw and alias in self.raw:
            name = alias
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:59] + "…"
        return BadConfig(
            f"config.json: {self.path}{name} is {shown}, not {expected}",
            "compare with the model's published config.json",
        )

    def missing(self, name: str) -> BadConfig:
        family = f" ({self.kind})" if self.kind else ""
        alias = self.aliases.get(name)
        spelled = f"{self.path}{name}" + (f" or {self.path}{alias}" if alias is not None else "")
        return BadConfig(
            f"config.json{family} has no {spelled}, and it cannot be derived",
            "use the model's published config.json, complete",
        )

    def _raw(self, name: str) -> Any:
        value = self.raw.get(name, _MISSING)
        alias = self.aliases.get(name)
        if value is _MISSING and alias is not None:
            value = self.raw.get(alias, _MISSING)
        return value

    def _value(self, name: str) -> Any:
        value = self._raw(name)
        if value is _MISSING:
            value = self.defaults.get(self.aliases.get(name, name), _MISSING)
            if value is _MISSING:
                value = self.defaults.get(name, _MISSING)
        return value

    def _size(self, name: str, default: Any) -> Any:
        value = self._raw(name)
        if value not in (_MISSING, None):
            return value
        known = self.defaults.get(self.aliases.get(name, name), self.defaults.get(name, _MISSING))
        if known not in (_MISSING, None) and (value is _MISSING or default is _REQUIRED):
            self._note_default(name, known)
            return known
        if default is _REQUIRED:
            raise self.missing(name)
        return default

    def _note_default(self, name: str, value: Any) -> None:
        self.note(
            f"{self.path}{name} is not in the config: taken as {value}, "
            f"transformers' default for {self.kind}"
        )

    def _whole(self, name: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, value, "a whole number")
        if not low <= value <= high:
            raise self.wrong(
                name, value if abs(value) < 10**40 else "a huge number", f"between {low} and {high}"
            )
        return value

    def _list(self, name: str, length: int | None) -> Sequence[Any] | None:
        value = self._value(name)
        if value in (_MISSING, None):
            return None
        if not isinstance(value, (list, tuple)) or len(value) > MAX_LIST:
            raise self.wrong(name, value, "a list")
        if length is not None and len(value) != length:
            raise self.wrong(name, value, f"a list of {length}, one for each layer")
        return value
