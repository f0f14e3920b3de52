"""The header of a GGUF file, read without trust: metadata, and every tensor's shape, type, bytes.

A file is `GGUF`, a version, two counts, then keys with values, then the tensors' names, shapes,
types and offsets, then aligned data (ggml's docs/gguf.md). Only the header is read, never more
than `MAX_HEADER` bytes, in pieces as they are needed; arrays of texts (vocabularies) are skipped
and only counted. Whatever a file claims is checked against its own size before anything is
allocated, and offsets must be where llama.cpp wants them.
"""

import os
import stat
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn

from ...errors import BadConfig
from ...formats.gguf_types import BY_NUMBER, REMOVED
from ...light_dataclass import dataclass
from ...reading import unblocked
from .tensors import GgufTensor

MAGIC = b"GGUF"
MAX_HEADER = 128 * 2**20  # a vocabulary of 262,144 with its merges takes 12 MB
MAX_KEYS = 4096
MAX_TENSORS = 2**17
MAX_NAME = 1024
MAX_TEXT = 2**16  # longer texts (chat templates) are skipped
MAX_KEPT = 4096  # elements of an array that is kept; longer ones are only counted
MAX_DIMS = 4
PIECE = 4 * 2**20
HINT = "fetch the file again, or give the hub id of the original model"

_SCALARS = {
    number: struct.Struct("<" + code)
    for number, code in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_STRING, _ARRAY = 8, 9

Value = int | float | bool | str | tuple[int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """One file's header. `lengths` counts the elements of arrays that were not kept."""

    path: Path
    metadata: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: tuple[GgufTensor, ...]
    file_bytes: int
    starts: tuple[int, ...] = ()
    """First byte of each tensor in the file."""


def is_gguf(path: Path) -> bool:
    """Whether `path` is a regular file that starts as a GGUF file does."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with open(path, "rb", opener=unblocked) as file:
            return file.read(4) == MAGIC
    except (OSError, ValueError):
        return False


def read_header(path: Path) -> GgufFile:
    """The header of one file. Raises BadConfig, on one line, for anything that is no whole GGUF."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadConfig(f"not a file: {str(path)!r}", HINT)
        with open(path, "rb", opener=unblocked) as file:
            return _Header(path, file).read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise BadConfig(f"cannot read {str(path)!r}: {reason}", HINT) from None


class _Header:
    """A cursor over the start of a file; every number that it reads is checked."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.size = os.fstat(file.fileno()).st_size
        self.data, self.at = bytearray(), 0
        self.starts: tuple[int, ...] = ()

    def wrong(self, what: str, hint: str = HINT) -> NoReturn:
        raise BadConfig(f"{self.path.name}: {what}", hint)

    def need(self, length: int) -> int:
        """Move over `length` bytes, read if they were not; returns where they start."""
        start, end = self.at, self.at + length
        if end > len(self.data):
            if end > self.size:
                self.wrong("a GGUF file that ends within its header")
            if end > MAX_HEADER:
                self.wrong(f"its header is longer than {MAX_HEADER >> 20} MiB")
            while len(self.data) < end:
                piece = self.file.read(max(PIECE, end - len(self.data)))
                if not piece:
                    self.wrong("a GGUF file that ends within its header")
                self.data += piece
        self.at = end
        return start

    def number(self, kind: int) -> int | float | bool:
        code = _SCALARS[kind]
        number: int | float | bool = code.unpack_from(self.data, self.need(code.size))[0]
        return number

    def whole(self, kind: int, limit: int, what: str) -> int:
        size = int(self.number(kind))
        if size > limit:
            self.wrong(f"{what}: {size:,}, more than any model has")
        return size

    def text(self, limit: int, what: str) -> str:
        length = self.whole(10, limit, f"length of {what}")
        start = self.need(length)
        return self.data[start : start + length].decode("utf-8", "replace")

    def read(self) -> GgufFile:
        if self.size < 24 or self.data[self.need(4) : 4] != MAGIC:
            self.wrong("not a GGUF file")
        version = int(self.number(4))
        if version in (2**24, 2 * 2**24, 3 * 2**24):
            self.wrong("a big-endian GGUF file, which llama.cpp here does not read")
        if version not in (2, 3):
            self.wrong(f"GGUF version {version}; 2 and 3 are read", "convert the model again")
        tensors = self.whole(10, MAX_TENSORS, "number of tensors")
        keys = self.whole(10, MAX_KEYS, "number of keys")
        metadata: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(keys):
            name = self.text(MAX_NAME, "a key")
            if name in metadata or name in lengths:
                self.wrong(f"the key {name[:80]!r} is there twice")
            value = self.value(name, lengths)
            if value is not None:
                metadata[name] = value
        described = self.tensors(tensors, metadata)
        return GgufFile(self.path, metadata, lengths, described, self.size, self.starts)

    def value(self, name: str, lengths: dict[str, int]) -> Value | None:
        """The value of a key; None for what is not kept, with its length in `lengths`."""
        kind = int(self.number(4))
        if kind in _SCALARS:
            return self.number(kind)
        if kind == _STRING:
            length = self.whole(10, MAX_HEADER, f"length of {name[:80]!r}")
            start = self.need(length)
            if length <= MAX_TEXT:
                return self.data[start : start + length].decode("utf-8", "replace")
            lengths[name] = length
            return None
        if kind != _ARRAY:
            self.wrong(f"the key {name[:80]!r} has a value of type {kind}, which does not exist")
        kind, length = int(self.number(4)), int(self.number(10))
        if kind in _SCALARS:
            code = _SCALARS[kind]
            start = self.need(length * code.size)
            if length <= MAX_KEPT:
                letter = code.format[-1]
                return struct.unpack_from(f"<{length}{letter}", self.data, start)
        elif kind == _STRING:
            self.skip_texts(length, name)
        else:
            self.wrong(f"the key {name[:80]!r} is an array of arrays, or of an unknown type")
        lengths[name] = length
        return None

    def skip_texts(self, length: int, name: str) -> None:
        """Move over `length` texts, each with its own length before it."""
        if length * 8 > self.size:
            self.wrong(f"{name[:80]!r} claims {length:,} texts, more than the file can hold")
        unpack, at = struct.Struct("<Q").unpack_from, self.at
        for _ in range(length):
            if at + 8 > len(self.data):
                self.at = at
                self.need(8)
            at += 8 + unpack(self.data, at)[0]
            if at > len(self.data):
                self.at = len(self.data)
                self.need(at - self.at)
        self.at = at

    def tensors(self, number: int, metadata: Mapping[str, Value]) -> tuple[GgufTensor, ...]:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment % 8:
            self.wrong(f"alignment of {str(alignment)[:20]}, which GGUF does not allow")
        by_name: dict[str, GgufTensor] = {}
        expected, offsets = 0, []
        for _ in range(number):
            name = self.text(MAX_NAME, "a tensor's name")
            if name in by_name:
                self.wrong(f"the tensor {name[:80]!r} is there twice")
            dims = int(self.number(4))
            if not 1 <= dims <= MAX_DIMS:
                self.wrong(f"the tensor {name[:80]!r} has {dims} dimensions")
            shape = tuple(int(self.number(10)) for _ in range(dims))
            kind, offset = int(self.number(4)), int(self.number(10))
            by_name[name] = tensor = self.tensor(name, shape, kind)
            if offset != expected:
                self.wrong(f"the tensor {name[:80]!r} lies at {offset:,}, not at {expected:,}")
            offsets.append(offset)
            expected += -(-tensor.nbytes // alignment) * alignment
        tensors = tuple(by_name.values())
        if tensors:
            start = -(-self.at // alignment) * alignment
            self.starts = tuple(start + offset for offset in offsets)
            end = start + expected - -(-tensors[-1].nbytes // alignment) * alignment
            end += tensors[-1].nbytes
            if end > self.size:
                self.wrong(f"the file is cut: its tensors end at byte {end:,} of {self.size:,}")
        return tensors

    def tensor(self, name: str, shape: tuple[int, ...], number: int) -> GgufTensor:
        kind = BY_NUMBER.get(number)
        if kind is None:
            gone = REMOVED.get(number)
            which = f"{gone}, which llama.cpp no longer reads" if gone else f"number {number}"
            self.wrong(f"the tensor {name[:80]!r} has a type unknown here: {which}")
        if 0 in shape:
            sizes = " x ".join(map(str, shape))
            self.wrong(f"the tensor {name[:80]!r} has no elements: its shape is {sizes}")
        if prod(shape) >= 2**60:
            self.wrong(f"the tensor {name[:80]!r} has more elements than any machine holds")
        if shape[0] % kind.block:
            self.wrong(f"rows of {name[:80]!r} have {shape[0]:,} elements, not whole {kind.name}")
        return GgufTensor(name, shape, kind.name, kind.row_bytes(shape[0]) * prod(shape[1:]))


def commonest_type(tensors: tuple[GgufTensor, ...]) -> str:
    """The type that most bytes of `tensors` have; "F32" where there are none."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.nbytes
    return max(sizes, key=lambda name: sizes[name], default="F32")
