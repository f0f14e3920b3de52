"""Single small tensors of safetensors files: headers, then the byte ranges asked for.

numpy alone; bfloat16 is widened to float32. Of matrices, some rows are read, never all.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BadConfig
from .untrusted_json import parse_json_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX = 100 * 2**20  # that of a model of 10^12 parameters has 30 MB
MAX_HEADER = 100 * 2**20  # the format's own limit
MOST_BYTES = 2**20
"""Of one tensor: a bias or a norm's gain of the widest model has 130 kB."""
_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


class ByteFile(Protocol):
    """A safetensors file somewhere: on this disk, or a hub's (hub_ranges.py)."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read(self, first: int, last: int) -> bytes:
        """Bytes first to last, the last not included; fewer where the file ends before."""


class LocalFile:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self._path, self.name, self.size = path, path.name, path.stat().st_size

    def read(self, first: int, last: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(first)
            return file.read(last - first)


File = TypeVar("File", bound=ByteFile)


class CheckpointTensors(Generic[File]):
    """The tensors of safetensors files by name. Raises BadConfig for a file that is no
    safetensors, and what the files raise that cannot be read."""

    def __init__(self, files: Iterable[File]) -> None:
        self._places: dict[str, tuple[File, int, dict[str, object]]] = {}
        for file in files:
            for name, (start, entry) in _header(file).items():
                self._places[name] = (file, start, entry)

    def names(self) -> Sequence[str]:
        return tuple(self._places)

    def get(self, name: str) -> NDArray[np.float32] | None:
        """A tensor of floats, flat; None where there is none, or one that is no small vector."""
        span = self.span(name)
        return self._floats(name, *span) if span is not None else None

    def rows(self, name: str, count: int) -> NDArray[np.float32] | None:
        """`count` rows of a matrix of floats, evenly spread; None where there is no such matrix."""
        spans = self.row_spans(name, count)
        if not spans:
            return None
        shape = self._places[name][2]["shape"]
        assert isinstance(shape, list)
        parts = [self._floats(name, *span) for span in spans]
        whole = [part for part in parts if part is not None and part.size == shape[1]]
        return np.stack(whole) if len(whole) == len(parts) else None

    def span(self, name: str) -> tuple[File, int, int] | None:
        """Where `get` reads; None where it has nothing to read."""
        span = self._span(name)
        return None if span is None or span[2] - span[1] > MOST_BYTES else span

    def row_spans(self, name: str, count: int) -> list[tuple[File, int, int]]:
        """Where `rows` reads; empty where it has nothing to read."""
        span = self._span(name)
        shape = self._places[name][2].get("shape") if span is not None else None
        if span is None or not isinstance(shape, list) or len(shape) != 2 or 0 in shape:
            return []
        file, first, last = span
        wide = (last - first) // shape[0]
        if wide > MOST_BYTES or wide * shape[0] != last - first:
            return []
        picked = sorted({int(i) for i in np.linspace(0, shape[0] - 1, count)})
        return [(file, first + i * wide, first + (i + 1) * wide) for i in picked]

    def forget(self, names: Iterable[str]) -> None:
        """Be without these tensors."""
        for name in names:
            del self._places[name]

    def _span(self, name: str) -> tuple[File, int, int] | None:
        """File and bytes of a tensor of floats."""
        if name not in self._places:
            return None
        file, start, entry = self._places[name]
        offsets, kind = entry.get("data_offsets"), entry.get("dtype")
        if not isinstance(offsets, list) or len(offsets) != 2:
            return None
        first, last = offsets
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first < last):
            return None
        return (file, start + first, start + last) if kind == "BF16" or kind in _TYPES else None

    def _floats(self, name: str, file: File, first: int, last: int) -> NDArray[np.float32] | None:
        kind = self._places[name][2]["dtype"]
        raw = file.read(first, last)
        if len(raw) != last - first:
            return None
        if kind == "BF16":
            wide = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2").astype(np.uint32) << 16
            return wide.view(np.float32)
        assert isinstance(kind, str)
        return np.frombuffer(raw, _TYPES[kind]).astype(np.float32)


def _header(file: ByteFile) -> dict[str, tuple[int, dict[str, object]]]:
    """(where the data begin, entry) of each tensor of a file."""
    length = int.from_bytes(file.read(0, 8), "little")
    if not 2 <= length <= MAX_HEADER or length + 8 > file.size:
        raise BadConfig(f"{file.name} is no safetensors file", "download it again")
    content = parse_json_object(file.read(8, 8 + length), f"the header of {file.name}")
    return {
        name: (8 + length, entry)
        for name, entry in content.items()
        if name != "__metadata__" and isinstance(entry, dict)
    }
