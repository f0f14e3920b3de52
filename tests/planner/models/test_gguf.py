"""GGUF files: the same model as its config.json, exact bytes, and hostile files in one line."""

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.planner.errors import BadConfig, BadInput, KVParetoError
from kvpareto.planner.formats.gguf_types import GGUF_TYPES, KV_TYPES, MIX_NUMBERS, MIXES
from kvpareto.planner.load_model import gguf_path, load_model
from kvpareto.planner.models.gguf.header import MAX_HEADER, read_header
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from tests.support.gguf_files import (
    LLAMA,
    gguf_bytes,
    headers,
    llama_tensors,
    tensors_of,
    text,
    value,
    write_gguf,
)

HEADERS = headers()


def shape_of(spec: ModelSpec) -> ModelSpec:
    """What a plan is computed from, tensors in one order."""
    return replace(
        spec,
        name="",
        dtype="",  # GGUF does not keep it: bfloat16
        model_type="",
        text_type="",
        gguf=None,
        extra={},
        warnings=(),
        tensors=tuple(sorted(spec.tensors, key=str)),
    )


@pytest.mark.parametrize("name", HEADERS)
def test_a_gguf_is_the_model_of_its_config(name: str, tmp_path: Path) -> None:
    row = HEADERS[name]
    path = write_gguf(tmp_path / "model.gguf", row["keys"], tensors_of(row))
    found = load_model(str(path))
    expected = read_model(row["config"], name)
    # Families write the longest context of their class's default where the config has none.
    assert shape_of(found) == shape_of(replace(expected, max_context=found.max_context))
    assert not any("parameters" in warning for warning in found.warnings)


def test_every_row_is_of_another_model_and_many_architectures_are_held() -> None:
    assert len({row["keys"]["general.architecture"] for row in HEADERS.values()}) >= 45


def test_bytes_of_blocks_by_hand() -> None:
    """From ggml-common.h's structures: codes, then scales; 256 or 32 to a block."""
    expected = {
        "Q4_0": 2 + 32 // 2,
        "Q5_1": 2 + 2 + 4 + 32 // 2,
        "Q8_0": 2 + 32,
        "Q2_K": 256 // 16 + 256 // 4 + 2 + 2,
        "Q3_K": 256 // 8 + 256 // 4 + 12 + 2,
        "Q4_K": 2 + 2 + 12 + 256 // 2,
        "Q5_K": 2 + 2 + 12 + 256 // 8 + 256 // 2,
        "Q6_K": 256 // 2 + 256 // 4 + 256 // 16 + 2,
        "IQ4_XS": 2 + 2 + 256 // 64 + 256 // 2,
        "IQ3_S": 2 + 256 // 4 + 256 // 8 + 256 // 32 + 4,
        "MXFP4": 1 + 32 // 2,
        "TQ2_0": 256 // 4 + 2,
    }
    assert {name: GGUF_TYPES[name].block_bytes for name in expected} == expected
    assert KV_TYPES["q5_0"].bits_per_weight == 5.5
    assert MIX_NUMBERS[15] == "Q4_K_M"
    assert MIXES["Q4_K_M"].name == "Q4_K"
    assert len({kind.number for kind in GGUF_TYPES.values()}) == len(GGUF_TYPES)


def test_weights_are_the_files_own_bytes(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny-Q4_K_M.gguf", LLAMA, llama_tensors())
    spec = load_model(str(path))
    assert spec.gguf is not None
    assert spec.name == "tiny-Q4_K_M"
    assert spec.gguf.mix == "Q4_K_M"
    # By hand: 96 rows of one 210-byte block; a layer's 256 + 64 + 256 + 512 + 512 rows of
    # Q4_K (144 a row), 64 of Q6_K, 256 rows of two IQ4_XS blocks (136), and two norms in F32.
    layer = 1600 * 144 + 64 * 210 + 256 * 2 * 136 + 2 * 1024
    assert spec.gguf.tensor_bytes == 96 * 210 + 2 * layer + 1024
    assert spec.gguf.file_bytes == path.stat().st_size
    assert spec.extra["path"] == str(path)
    assert any("GGUF" in warning for warning in spec.warnings)


def test_any_part_of_a_split_is_the_whole_model(tmp_path: Path) -> None:
    names = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    keys: dict[str, object] = {**LLAMA, "split.count": 2, "split.no": 0}
    write_gguf(names[0], keys, llama_tensors(1))
    write_gguf(names[1], {"split.count": 2, "split.no": 1}, llama_tensors(1, first=1))
    whole = load_model(str(write_gguf(tmp_path / "whole.gguf", LLAMA, llama_tensors())))
    for path in names:
        found = load_model(str(path))
        assert found.name == "m"
        assert shape_of(found) == shape_of(whole)
        assert found.gguf is not None
        assert whole.gguf is not None
        assert found.gguf.tensor_bytes == whole.gguf.tensor_bytes
    names[1].unlink()
    with pytest.raises(BadConfig, match=r"m-00002-of-00002.gguf is not beside it"):
        load_model(str(names[0]))


def test_a_folder_with_one_model_and_its_image_encoder(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", LLAMA, llama_tensors())
    write_gguf(tmp_path / "mmproj-model.gguf", {"general.architecture": "clip"}, [])
    assert load_model(str(tmp_path)).name == "model"
    write_gguf(tmp_path / "other.gguf", LLAMA, llama_tensors())
    with pytest.raises(BadInput, match="2 GGUF models") as error:
        load_model(str(tmp_path))
    assert "model.gguf, other.gguf" in error.value.hint
    with pytest.raises(BadConfig, match="image or audio encoder"):
        load_model(str(tmp_path / "mmproj-model.gguf"))


def test_blobs_of_ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    digest = "4b1a" + 60 * "0"
    (tmp_path / "blobs").mkdir()
    blob = write_gguf(tmp_path / "blobs" / f"sha256-{digest}", LLAMA, llama_tensors())
    manifest = tmp_path / "manifests/registry.ollama.ai/library/tiny/8b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [{"mediaType": "x"}, layer]}))
    for typed in (f"sha256:{digest}", f"sha256-{digest[:12]}", "ollama:tiny:8b", str(blob)):
        assert gguf_path(typed) == blob
        assert load_model(typed).hidden == 256
    for typed, wrong in (
        ("sha256:ffffffffffff", "no such blob"),
        ("ollama:tiny", "no manifest of tiny:latest"),
        ("ollama:../../x", "no manifest|no name"),
    ):
        with pytest.raises(BadInput, match=wrong):
            load_model(typed)


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
