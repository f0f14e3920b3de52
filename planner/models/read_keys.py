"""A config section that remembers which of its keys were asked for.

What a family does not ask for, it does not understand: experts under another spelling, a loop
over the layers, a second tower. The keys that nobody asked for are judged once a model is
described (families/unknown/unread.py).
"""

from collections.abc import Iterator, Mapping
from typing import Any

_DEPTH = 4  # sections deeper than this hold no sizes of a model


class ReadKeys(dict[str, Any]):
    """A section of a config.json; sections inside it remember too. `read` are the keys asked for
    that it has, `absent` those that it has not."""

    def __init__(self, raw: Mapping[str, Any], depth: int = _DEPTH) -> None:
        super().__init__({key: _inside(value, depth) for key, value in raw.items()})
        self.read: set[str] = set()
        self.absent: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        if key in self:
            return super().__getitem__(key)
        self.absent.add(key)
        return default

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        present = super().__contains__(key)
        if present and isinstance(key, str):
            self.read.add(key)
        return present

    def peek(self, key: str) -> Any:
        """The value of a key, without counting as asked for."""
        return super().get(key)

    def changed(self, **values: Any) -> "ReadKeys":
        """The section with other values; what is asked of it counts as asked of this one."""
        changed = ReadKeys({**self, **values}, 0)
        changed.read = self.read
        return changed

    def unread(self, path: str = "") -> Iterator[tuple[str, str, Any]]:
        """(path of the section, key, value) of what nobody asked for, here and in the sections
        that somebody did ask for."""
        for key, value in self.items():
            if key not in self.read:
                yield path, key, value
            elif isinstance(value, ReadKeys):
                yield from value.unread(f"{path}{key}.")


def _inside(value: Any, depth: int) -> Any:
    if isinstance(value, ReadKeys):
        return value
    return ReadKeys(value, depth - 1) if isinstance(value, dict) and depth > 0 else value
