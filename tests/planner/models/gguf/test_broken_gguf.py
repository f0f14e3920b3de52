"""GGUF files that are broken or hostile: one clear line each."""

import os
import struct
from pathlib import Path

import pytest

from kvpareto.planner.errors import BadConfig, KVParetoError
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.gguf.header import MAX_HEADER, read_header
from tests.support.gguf_files import (
    LLAMA,
    gguf_bytes,
    llama_tensors,
    text,
    value,
    write_gguf,
)


def broken(change: str) -> bytes:
    """A file with one thing wrong."""
    head, size = gguf_bytes(LLAMA, llama_tensors())
    whole = head + bytes(size)
    counts = struct.pack("<IQQ", 3, 0, 1)
    match change:
        case "empty":
            return b""
        case "magic":
            return b"GGML" + whole[4:]
        case "version":
            return b"GGUF" + struct.pack("<I", 1) + whole[8:]
        case "big-endian":
            return b"GGUF" + struct.pack(">I", 3) + whole[8:]
        case "cut header":
            return whole[: len(head) // 2]
        case "cut data":
            return whole[:-1]
        case "tensors":
            return b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1) + whole[24:]
        case "keys":
            return b"GGUF" + struct.pack("<IQQ", 3, 1, 2**63) + whole[24:]
        case "long key":
            return b"GGUF" + counts + struct.pack("<Q", 2**50) + whole
        case "long text":
            return b"GGUF" + counts + text("a") + struct.pack("<IQ", 8, 2**62) + whole
        case "huge array":
            return b"GGUF" + counts + text("a") + struct.pack("<IIQ", 9, 4, 2**61) + whole
        case "many texts":
            return b"GGUF" + counts + text("a") + struct.pack("<IIQ", 9, 8, 2**61) + whole
        case "nested":
            deep = struct.pack("<IIQ", 9, 9, 1) * 100_000
            return b"GGUF" + counts + text("a") + deep
        case "value type":
            return b"GGUF" + counts + text("a") + struct.pack("<I", 99) + whole
        case "twice":
            body = 2 * (text("a") + value(1))
            return b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + body
        case "alignment":
            return gguf_bytes({**LLAMA, "general.alignment": 0}, [])[0]
    raise ValueError(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("empty", "not a GGUF file"),
        ("magic", "not a GGUF file"),
        ("version", "GGUF version 1"),
        ("big-endian", "big-endian"),
        ("cut header", "ends within its header"),
        ("cut data", "cut: its tensors end at byte"),
        ("tensors", "number of tensors"),
        ("keys", "number of keys"),
        ("long key", "length of a key"),
        ("long text", "length of 'a'"),
        ("huge array", "ends within its header"),
        ("many texts", "texts, more than the file can hold"),
        ("nested", "array of arrays"),
        ("value type", "type 99"),
        ("twice", "there twice"),
        ("alignment", "alignment"),
    ],
)
def test_broken_files_are_one_clear_line(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(broken(change))
    with pytest.raises(BadConfig, match=message) as error:
        load_model(str(path))
    assert "\n" not in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (("blk.0.attn_k.weight", (256, 65), "Q4_K"), "contradicts itself: blk.0.attn_k.weight"),
        (("blk.0.attn_k.weight", (256, 2**60), "Q4_K"), "more elements than any machine"),
    ],
)
def test_tensors_that_deny_the_keys(
    tensor: tuple[str, tuple[int, ...], str], message: str, tmp_path: Path
) -> None:
    tensors = [tensor if t[0] == tensor[0] else t for t in llama_tensors()]
    head, size = gguf_bytes(LLAMA, tensors)
    path = tmp_path / "x.gguf"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(min(len(head) + size, 2**30))
    with pytest.raises(BadConfig, match=message):
        load_model(str(path))


def test_types_unknown_or_gone_and_rows_that_are_no_blocks(tmp_path: Path) -> None:
    head, _ = gguf_bytes({}, [("a.weight", (256, 2), "F32")])
    kind = len(head) - len(head) % 32
    at = head.index(text("a.weight")) + len(text("a.weight")) + 4 + 16
    assert kind
    assert head[at : at + 4] == struct.pack("<I", 0)
    for number, message in ((4, "Q4_2, which llama.cpp no longer reads"), (77, "number 77")):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(head[:at] + struct.pack("<I", number) + head[at + 4 :] + bytes(4096))
        with pytest.raises(BadConfig, match=message):
            read_header(path)
    rows = gguf_bytes({}, [("a.weight", (200, 2), "F32")])[0]
    path = tmp_path / "rows.gguf"
    path.write_bytes(rows[:at] + struct.pack("<I", 12) + rows[at + 4 :] + bytes(4096))
    with pytest.raises(BadConfig, match="200 elements, not whole Q4_K"):
        read_header(path)


def test_devices_pipes_and_endless_headers(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(KVParetoError):
            load_model(str(path))
        with pytest.raises(BadConfig, match="not a file"):
            read_header(path)
    endless = tmp_path / "endless.gguf"
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IQ", 8, MAX_HEADER)
    with endless.open("wb") as file:
        file.write(start)
        file.truncate(2**31)
    with pytest.raises(BadConfig, match="header is longer than 128 MiB"):
        load_model(str(endless))


@pytest.mark.parametrize("name", ["bert", "wavtokenizer-dec", "no such\nthing"])
def test_unknown_architectures_are_refused_by_name(name: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", {**LLAMA, "general.architecture": name}, [])
    with pytest.raises(BadConfig, match="which is not read here") as error:
        load_model(str(path))
    assert name.split()[0] in error.value.message


@pytest.mark.parametrize("key", [key for key in LLAMA if key.startswith("llama.")])
@pytest.mark.parametrize("bad", ["text", -3, 2.5, 0, 4_000_000_000, [1, 2]])
def test_keys_of_any_kind_are_an_error_or_a_model(key: str, bad: object, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", {**LLAMA, key: bad}, llama_tensors())
    try:
        spec = load_model(str(path))
    except KVParetoError as error:
        said = error.message, error.hint
    else:
        said = ("a model", f"of {spec.parameters} parameters")
        assert spec.hidden == 256
    assert all(said)


@pytest.mark.parametrize("heads", [0, None, [-1, -1], [0, 0]])
def test_a_model_with_attention_has_heads(heads: object, tmp_path: Path) -> None:
    keys = {**LLAMA, "llama.attention.head_count": heads}
    keys = {name: value for name, value in keys.items() if value is not None}
    path = write_gguf(tmp_path / "x.gguf", keys, llama_tensors())
    with pytest.raises(BadConfig, match=r"llama\.attention\.head_count"):
        load_model(str(path))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("shape", [(0, 96), (256, 0), (0,)])
def test_a_tensor_without_elements_is_refused_by_name(
    place: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    tensors = llama_tensors()
    name, _, kind = tensors[place]
    tensors[place] = (name, shape, kind)
    with pytest.raises(BadConfig, match=f"x.gguf: the tensor '{name}' has no elements") as found:
        load_model(str(write_gguf(tmp_path / "x.gguf", LLAMA, tensors)))
    assert " x ".join(map(str, shape)) in found.value.message


@pytest.mark.parametrize(
    ("key", "number"),
    [("context_length", 0), ("embedding_length", 0), ("attention.head_count", 2**31 - 1)],
)
def test_a_wrong_key_is_the_files_and_no_config_is_blamed(
    key: str, number: int, tmp_path: Path
) -> None:
    keys = {**LLAMA, f"llama.{key}": number}
    with pytest.raises(BadConfig, match=r"x\.gguf, by its keys: ") as found:
        load_model(str(write_gguf(tmp_path / "x.gguf", keys, llama_tensors())))
    assert "config.json" not in found.value.message + found.value.hint
