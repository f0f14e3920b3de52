"""The fingerprint of weights: what it reads of which file, by hand."""

import json
import struct
from hashlib import sha256
from pathlib import Path

from kvpareto.planner.accuracy.weights_sample import file_fingerprint, weights_fingerprint


def checkpoint(folder: Path, tensors: dict[str, bytes]) -> bytes:
    """A model.safetensors of bytes; its header."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    body = b"".join(tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    return text


def test_a_fingerprint_is_of_the_middle_of_each_tensor(tmp_path: Path) -> None:
    small, large = bytes(range(100)), bytes(i % 251 for i in range(2000))
    checkpoint(tmp_path, {"a": small, "b": large})
    digest = sha256(b"2100")
    for name in sorted(("a", "b"), key=lambda name: sha256(name.encode()).digest()):
        data = {"a": small, "b": large}[name]
        digest.update(f"{name} U8 [{len(data)}]".encode())
        start = 0 if name == "a" else 744  # (2,000 - 512) / 2
        digest.update(data[start : start + 512])
    assert weights_fingerprint(tmp_path) == digest.hexdigest()[:16]


def test_no_whole_checkpoint_has_no_fingerprint(tmp_path: Path) -> None:
    assert weights_fingerprint(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 10**9) + b"{")
    assert weights_fingerprint(tmp_path) is None


def test_a_file_is_looked_at_in_128_places(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    data = bytes(i % 253 for i in range(100_000))
    path.write_bytes(data)
    digest = sha256(b"100000")
    for i in range(128):
        at = (100_000 - 512) * i // 127
        digest.update(data[at : at + 512])
    assert file_fingerprint(path) == digest.hexdigest()[:16]
    path.write_bytes(b"short")
    digest = sha256(b"5")
    for _ in range(128):
        digest.update(b"short")
    assert file_fingerprint(path) == digest.hexdigest()[:16]
    assert file_fingerprint(tmp_path / "none") is None
