"""Collecting a model's weight tensors by name, shape and number, as transformers names them.

Families call `linear`, `norm` and `add` inside nested scopes; a scope carries a name prefix
(`model.layers.*.`), how many times everything in it exists, and the tower it belongs to.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from .spec import Part, Role, TensorGroup

_Key = tuple[str, tuple[int, ...], Role, Part, str | None]


class Tensors:
    """Tensor groups under construction."""

    def __init__(self) -> None:
        self._counts: dict[_Key, int] = {}
        self._prefix = ""
        self._times = 1
        self._part = Part.TEXT

    @contextmanager
    def scope(self, prefix: str = "", times: int = 1, part: Part | None = None) -> Iterator[None]:
        """Everything added inside is named `prefix` + its name, and exists `times` times."""
        saved = self._prefix, self._times, self._part
        self._prefix += prefix
        self._times *= times
        self._part = part or self._part
        try:
            yield
        finally:
            self._prefix, self._times, self._part = saved

    def add(self, name: str, shape: tuple[int, ...], role: Role, dtype: str | None = None) -> None:
        key = (self._prefix + name, shape, role, self._part, dtype)
        self._counts[key] = self._counts.get(key, 0) + self._times

    def linear(
        self, name: str, inputs: int, outputs: int, bias: bool = False, role: Role = Role.LINEAR
    ) -> None:
        """`name.weight` of shape (outputs, inputs), and `name.bias`."""
        self.add(f"{name}.weight", (outputs, inputs), role)
        if bias:
            self.add(f"{name}.bias", (outputs,), Role.BIAS)

    def norm(self, name: str, width: int, bias: bool = False) -> None:
        self.add(f"{name}.weight", (width,), Role.NORM)
        if bias:
            self.add(f"{name}.bias", (width,), Role.NORM)

    def embedding(self, name: str, rows: int, width: int) -> None:
        self.add(f"{name}.weight", (rows, width), Role.EMBEDDING)

    def head(self, name: str, inputs: int, outputs: int, bias: bool = False) -> None:
        self.linear(name, inputs, outputs, bias, Role.LM_HEAD)

    def include(self, other: "Tensors") -> None:
        """Add every tensor of another list, as it is named there."""
        for key, count in other._counts.items():
            self._counts[key] = self._counts.get(key, 0) + count

    def clear(self) -> None:
        """Forget every tensor."""
        self._counts.clear()

    def groups(self) -> tuple[TensorGroup, ...]:
        return tuple(
            TensorGroup(name, shape, count, role, part, dtype)
            for (name, shape, role, part, dtype), count in self._counts.items()
            if count
        )
