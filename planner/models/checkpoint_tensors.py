"""Single small tensors of a safetensors folder: headers, then the byte ranges asked for.

numpy alone; bfloat16 is widened to float32. Of matrices, some rows are read, never all.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BadConfig
from .untrusted_json import parse_json_object

MOST_BYTES = 2**20
"""Of one tensor: a bias or a norm's gain of the widest model has 130 kB."""
_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
_MAX_HEADER = 100 * 2**20


class CheckpointTensors:
    """The tensors of a folder's safetensors files by name. Raises BadConfig for a file that is no
    safetensors, OSError for one that cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[Path, int, dict[str, object]]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            for name, (start, entry) in _header(path).items():
                self._places[name] = (path, start, entry)

    def names(self) -> Sequence[str]:
        return tuple(self._places)

    def get(self, name: str) -> NDArray[np.float32] | None:
        """A tensor of floats, flat; None where there is none, or one that is no small vector."""
        span = self._span(name)
        if span is None or span[2] - span[1] > MOST_BYTES:
            return None
        return self._floats(name, *span)

    def rows(self, name: str, count: int) -> NDArray[np.float32] | None:
        """`count` rows of a matrix of floats, evenly spread; None where there is no such matrix."""
        span = self._span(name)
        shape = self._places[name][2].get("shape") if span is not None else None
        if span is None or not isinstance(shape, list) or len(shape) != 2 or 0 in shape:
            return None
        path, first, last = span
        wide = (last - first) // shape[0]
        if wide > MOST_BYTES or wide * shape[0] != last - first:
            return None
        picked = sorted({int(i) for i in np.linspace(0, shape[0] - 1, count)})
        parts = [self._floats(name, path, first + i * wide, first + (i + 1) * wide) for i in picked]
        whole = [part for part in parts if part is not None and part.size == shape[1]]
        return np.stack(whole) if len(whole) == len(parts) else None

    def _span(self, name: str) -> tuple[Path, int, int] | None:
        """File and bytes of a tensor of floats."""
        if name not in self._places:
            return None
        path, start, entry = self._places[name]
        offsets, kind = entry.get("data_offsets"), entry.get("dtype")
        if not isinstance(offsets, list) or len(offsets) != 2:
            return None
        first, last = offsets
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first < last):
            return None
        return (path, start + first, start + last) if kind == "BF16" or kind in _TYPES else None

    def _floats(self, name: str, path: Path, first: int, last: int) -> NDArray[np.float32] | None:
        kind = self._places[name][2]["dtype"]
        with path.open("rb") as file:
            file.seek(first)
            raw = file.read(last - first)
        if len(raw) != last - first:
            return None
        if kind == "BF16":
            wide = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2").astype(np.uint32) << 16
            return wide.view(np.float32)
        assert isinstance(kind, str)
        return np.frombuffer(raw, _TYPES[kind]).astype(np.float32)


def _header(path: Path) -> dict[str, tuple[int, dict[str, object]]]:
    """(where the data begin, entry) of each tensor of a file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _MAX_HEADER or length + 8 > path.stat().st_size:
            raise BadConfig(f"{path.name} is no safetensors file", "download it again")
        content = parse_json_object(file.read(length), f"the header of {path.name}")
    return {
        name: (8 + length, entry)
        for name, entry in content.items()
        if name != "__metadata__" and isinstance(entry, dict)
    }
