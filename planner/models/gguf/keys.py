"""Checked reading of one GGUF: its keys without the architecture's prefix, its tensors' shapes."""

from collections.abc import Mapping, Sequence

from ...errors import BadConfig
from ..config_fields import MAX_LAYERS
from .header import HINT, Value
from .tensors import GgufTensor


class GgufKeys:
    """The keys of one architecture: `count("block_count")` reads `llama.block_count`."""

    def __init__(
        self, metadata: Mapping[str, Value], architecture: str, tensors: Sequence[GgufTensor]
    ) -> None:
        self.metadata, self.architecture = metadata, architecture
        self.tensors = {tensor.name: tensor for tensor in tensors}

    def raw(self, name: str) -> Value | None:
        return self.metadata.get(f"{self.architecture}.{name}")

    def wrong(self, name: str, value: object, wanted: str) -> BadConfig:
        key = f"{self.architecture}.{name}"
        if value is None:
            return BadConfig(f"the GGUF file lacks {key}", HINT)
        return BadConfig(f"the GGUF file's {key} is {str(value)[:60]}, not {wanted}", HINT)

    def optional(self, name: str) -> int | None:
        """A whole number, or None where the key is not there."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
            raise self.wrong(name, value, "a whole number")
        return value

    def count(self, name: str) -> int:
        value = self.optional(name)
        if value is None:
            raise self.wrong(name, None, "")
        return value

    def number(self, name: str) -> float | None:
        value = self.raw(name)
        return float(value) if isinstance(value, int | float) else None

    @property
    def blocks(self) -> int:
        """Blocks of the file, extra prediction layers among them."""
        blocks = self.count("block_count")
        if not 1 <= blocks <= MAX_LAYERS:
            raise self.wrong("block_count", blocks, "a number of layers")
        return blocks

    @property
    def extra_layers(self) -> int:
        """Extra prediction layers (MTP), which are the last blocks."""
        extra = self.optional("nextn_predict_layers") or 0
        if extra >= self.blocks:
            raise self.wrong("nextn_predict_layers", extra, "fewer than the blocks")
        return extra

    @property
    def layers(self) -> int:
        return self.blocks - self.extra_layers

    def per_layer(self, name: str, default: int | None = None) -> list[int]:
        """One whole number for each layer: a list's, or the same for all."""
        value = self.raw(name)
        if isinstance(value, tuple):
            whole = all(isinstance(x, int) and 0 <= x < 2**40 for x in value)
            if len(value) < self.layers or not whole:
                raise self.wrong(name, value, f"{self.layers} whole numbers")
            return [int(x) for x in value[: self.layers]]
        if value is None and default is not None:
            return [default] * self.layers
        return [self.count(name)] * self.layers

    def greatest(self, name: str) -> int | None:
        """The largest of a key that may be a list (0 stands for layers without it), or None."""
        return None if self.raw(name) is None else max(self.per_layer(name))

    def has(self, *names: str) -> bool:
        """Whether any layer has a tensor `blk.N.name`."""
        return any(f"blk.{i}.{name}" in self.tensors for i in range(self.blocks) for name in names)

    def in_layer(self, layer: int, name: str) -> GgufTensor | None:
        return self.tensors.get(f"blk.{layer}.{name}")

    def rows(self, name: str, at: int = 1) -> int | None:
        """The size `at` of a tensor's shape (1: its rows), None where there is no such tensor."""
        tensor = self.tensors.get(name)
        return tensor.shape[at] if tensor is not None and len(tensor.shape) > at else None

    def in_any(self, name: str, at: int) -> int | None:
        """The size `at` of the first layer's `name` that there is."""
        for i in range(self.blocks):
            size = self.rows(f"blk.{i}.{name}", at)
            if size is not None:
                return size
        return None
