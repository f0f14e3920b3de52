"""The tensors of a GGUF file as a ModelSpec keeps them: exact names, types and bytes."""

from math import prod

from ...light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. `shape` is ggml's: the first number is the length of a row."""

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def layer(self) -> int | None:
        """The block it belongs to (`blk.7.attn_q.weight`: 7), None outside of blocks."""
        start, _, rest = self.name.partition(".")
        digits = rest.partition(".")[0]
        return int(digits) if start == "blk" and digits.isdecimal() else None


@dataclass(frozen=True, slots=True)
class StoredGguf:
    """What a model's GGUF files hold.

    `mix`: the name of their mix of types ("Q4_K_M"), by the file or by its commonest type.
    `architecture`: llama.cpp's name. `file_bytes`: all files together, headers too.
    """

    mix: str
    architecture: str
    tensors: tuple[GgufTensor, ...]
    file_bytes: int

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)
