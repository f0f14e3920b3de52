"""A fingerprint of a checkpoint's weights, from a few bytes of some tensors.

Two fine-tunes of one base have the same config, the same tensor names and the same file sizes, so
their values must be looked at. All of them would take minutes; a few bytes of a fixed choice of
tensors take milliseconds. Tensors are chosen by the hash of their names, which no period of the
layers can align with, so that a change to any one kind of matrix (what a merged adapter leaves)
is seen.

    fingerprint = SHA-256 of, for every safetensors file in order of its tensors' names:
    each chosen tensor's name, dtype, shape, and SAMPLE bytes from its middle; and the total size
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ..errors import BadInput
from ..memory.weight_files import StoredWeights, header_length, stored_weights
from ..models.untrusted_json import parse_json_object

TENSORS = 128
"""Tensors that are looked into."""
SAMPLE = 512
"""Bytes of each: 128 reads, a quarter of a second at most where the disk turns."""

_Place = tuple[str, str, Path, int, int]
"""(name, dtype and shape, file, first byte in the file, bytes)."""


def weights_fingerprint(folder: Path) -> str | None:
    """16 hexadecimal digits; None where the folder holds no whole safetensors checkpoint.

    How tensors are spread over files does not count: a checkpoint that is sharded anew is the same.
    """
    try:
        stored = stored_weights(folder)
        if stored is None or not stored.files:
            return None
        return _digest(stored)
    except (BadInput, OSError):
        return None


def file_fingerprint(path: Path) -> str | None:
    """16 hexadecimal digits of one GGUF file: its size, and SAMPLE bytes at as many places as a
    checkpoint's tensors, evenly spread; None where it cannot be read."""
    try:
        size = path.stat().st_size
        digest = sha256(str(size).encode())
        with path.open("rb") as file:
            for i in range(TENSORS):
                file.seek((size - SAMPLE) * i // (TENSORS - 1) if size > SAMPLE else 0)
                digest.update(file.read(SAMPLE))
    except OSError:
        return None
    return digest.hexdigest()[:16]


def _digest(stored: StoredWeights) -> str:
    places = [place for file in stored.files for place in _places(file)]
    digest = sha256(str(sum(place[4] for place in places)).encode())
    chosen = sorted(places, key=lambda place: sha256(place[0].encode()).digest())[:TENSORS]
    for name, kind, file, start, size in chosen:
        digest.update(f"{name} {kind}".encode())
        with file.open("rb") as opened:
            opened.seek(start + max(0, (size - SAMPLE) // 2))
            digest.update(opened.read(min(SAMPLE, size)))
    return digest.hexdigest()[:16]


def _places(file: Path) -> Iterator[_Place]:
    """Where each tensor of a file lies. What is no tensor's entry is passed over."""
    length = header_length(file)
    with file.open("rb") as opened:
        header = parse_json_object(opened.read(8 + length)[8:], f"the header of {file.name}")
    for name, entry in header.items():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if name == "__metadata__" or not isinstance(offsets, list) or len(offsets) != 2:
            continue
        start, end = offsets
        if isinstance(start, int) and isinstance(end, int) and 0 <= start <= end < 2**60:
            assert isinstance(entry, dict)
            yield (
                name,
                f"{entry.get('dtype')} {entry.get('shape')}",
                file,
                8 + length + start,
                (end - start),
            )
