"""A model as a key of caches."""

from .spec import ModelSpec


class SpecKey:
    """A spec as a key: specs are long, and the same object within one plan."""

    __slots__ = ("spec",)

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpecKey) and other.spec is self.spec
