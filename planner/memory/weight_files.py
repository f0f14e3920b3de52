"""Bytes of the tensors in a folder's safetensors files, against which computed sizes are checked.

A safetensors file is 8 bytes of length, a JSON header of that length, and tensors: the sizes of
the files tell, if every one is there; headers are read only where they differ from what the config
gives, a tensor never. An index alone counts by its `total_size`, which is not always right (that
of Qwen3-32B-AWQ is 13,107,200 bytes above its tensors).
"""

import struct
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TypeGuard

from ..errors import BadConfig, BadInput
from ..formats.dtypes import DTYPE_BYTES
from ..light_dataclass import dataclass
from ..models.checkpoint_tensors import INDEX, MAX_HEADER, MAX_INDEX, SINGLE
from ..models.spec import ModelSpec
from ..models.untrusted_json import parse_json_object, read_json_object
from ..units import format_bytes
from .weights import available_weight_bits, weight_bytes

MAX_FILES = 2000
_HINT = "fetch the file again, or give the config.json alone"
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """Bytes of all tensors, and the files they are in; no files: what an index declares."""

    total: int
    files: tuple[Path, ...] = ()


def compare_with_files(spec: ModelSpec, folder: Path) -> ModelSpec:
    """`spec` with the weights' size as its files give it, and a warning where that is another.

    A plain checkpoint saved in a wider or narrower dtype than its config names is loaded in the
    config's dtype, so its elements count, not its bytes.
    """
    try:
        stored = stored_weights(folder)
        if stored is None:
            return spec
        computed = weight_bytes(spec, available_weight_bits(spec)[0]).total
        loaded = stored.total
        if loaded != computed and spec.quantization is None:
            loaded += _cast(stored.files, spec)
    except BadInput as error:
        return replace(spec, warnings=(*spec.warnings, f"{error.message}: its size is not used"))
    spec = replace(spec, stored_weight_bytes=loaded)
    if loaded == computed == stored.total:
        return spec
    source = "safetensors files hold" if stored.files else "safetensors index declares"
    note = f", loaded as {spec.dtype}" if loaded != stored.total else ""
    warning = (
        f"the {source} {format_bytes(stored.total)} of tensors ({stored.total:,} bytes){note}: "
        f"{loaded - computed:+,} bytes against the {computed:,} that config.json gives"
    )
    return replace(spec, warnings=(*spec.warnings, warning))


def stored_weights(folder: Path) -> StoredWeights | None:
    """What the folder's safetensors files hold, or their index declares; None without either.

    Raises BadConfig for a file that is no safetensors, an index that names no files, and where
    some of the files are missing and it declares no total.
    """
    declared, listed = None, set()
    if (folder / INDEX).is_file():
        content = read_json_object(folder / INDEX, MAX_INDEX)
        weight_map, metadata = content.get("weight_map"), content.get("metadata")
        if not isinstance(weight_map, dict) or not all(map(_is_text, weight_map.values())):
            raise BadConfig(f"{INDEX} does not say which files the tensors are in", _HINT)
        listed = set(weight_map.values())
        if isinstance(metadata, dict):
            size = metadata.get("total_size")
            if isinstance(size, int | float) and 0 < size < 2**60:
                declared = StoredWeights(int(size))
    elif (folder / SINGLE).is_file():
        listed = {SINGLE}
    files = tuple(folder / name for name in sorted(listed) if Path(name).name == name)
    missing = [file.name for file in files[:MAX_FILES] if not file.is_file()]
    if declared is None and missing and len(missing) < len(files):
        raise BadConfig(
            f"{len(missing)} of the {len(files)} weight files are not here ({missing[0]})", _HINT
        )
    if files and len(files) <= MAX_FILES and not missing:
        return StoredWeights(sum(_data_bytes(file) for file in files), files)
    return declared


def _cast(files: tuple[Path, ...], spec: ModelSpec) -> int:
    """Bytes that floating-point tensors gain by being cast to the dtypes they are loaded in."""
    wanted = DTYPE_BYTES[spec.dtype]
    fixed = ((g.parameters, g.dtype) for g in spec.tensors if g.dtype is not None and files)
    return sum(n * (DTYPE_BYTES[dtype] - wanted) for n, dtype in fixed) + sum(
        prod(shape) * wanted - size
        for file in files
        for dtype, shape, size in _tensors(file)
        if dtype in FLOATS
    )


def _data_bytes(path: Path) -> int:
    """Bytes after the header: all of them tensors."""
    length = header_length(path)
    return path.stat().st_size - 8 - length


def header_length(path: Path) -> int:
    """Bytes of a safetensors file's header. Raises BadConfig for another file."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        length = struct.unpack("<Q", start[:8])[0]
        if start[8:] == b"{" and length <= min(MAX_HEADER, path.stat().st_size - 8):
            return int(length)
    except (OSError, struct.error):
        pass
    raise _no_safetensors(path)


def _no_safetensors(path: Path) -> BadConfig:
    return BadConfig(f"{path.name} is not a safetensors file", _HINT)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _tensors(path: Path) -> list[tuple[str, list[int], int]]:
    """(dtype, shape, bytes) of the tensors in one safetensors file, from its header."""
    length = header_length(path)
    with path.open("rb") as file:
        header = parse_json_object(file.read(8 + length)[8:], f"the header of {path.name}")
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            raise _no_safetensors(path)
        dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not (isinstance(dtype, str) and _counts(shape) and _counts(offsets)):
            raise _no_safetensors(path)
        if len(offsets) != 2 or offsets[1] < offsets[0]:
            raise _no_safetensors(path)
        tensors.append((dtype, shape, offsets[1] - offsets[0]))
    return tensors


def _counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**60 for item in value
    )
