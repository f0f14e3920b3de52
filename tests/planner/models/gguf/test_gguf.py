"""GGUF files: the same model as its config.json, exact bytes, split files, folders and blobs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.formats.gguf_types import GGUF_TYPES, KV_TYPES, MIX_NUMBERS, MIXES
from kvpareto.planner.load_model import gguf_path, load_model
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from tests.support.gguf_files import (
    LLAMA,
    headers,
    llama_tensors,
    tensors_of,
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
