"""safetensors headers and indices: the stored size, and what is said where it differs."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.weight_files import StoredWeights, stored_weights
from kvpareto.planner.memory.weights import weight_bytes
from tests.support.models.tiny_llama import CONFIG

# q, k, v, o; gate, up, down; two norms
LAYER = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128 + 2 * 64
ELEMENTS = 2 * 100 * 64 + 2 * LAYER + 64


def _write(path: Path, elements: int, dtype: type = np.float16) -> None:
    safetensors.numpy.save_file({"all": np.zeros(elements, dtype)}, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_files_that_agree_say_nothing(folder: Path) -> None:
    _write(folder / "model.safetensors", ELEMENTS)
    spec = load_model(str(folder))
    assert spec.stored_weight_bytes == 2 * ELEMENTS == weight_bytes(spec, 16).total
    assert spec.warnings == ()


def test_more_tensors_than_the_config_names_are_counted_and_said(folder: Path) -> None:
    _write(folder / "model.safetensors", ELEMENTS + 500)
    spec = load_model(str(folder))
    assert weight_bytes(spec, 16).total == 2 * ELEMENTS + 1000
    assert any("+1,000 bytes" in warning for warning in spec.warnings)
    assert weight_bytes(spec, 8).total < 2 * ELEMENTS  # quantized anew, from the config


def test_a_wider_dtype_on_disk_is_loaded_as_the_config_says(folder: Path) -> None:
    _write(folder / "model.safetensors", ELEMENTS, np.float32)
    spec = load_model(str(folder))
    assert weight_bytes(spec, 16).total == 2 * ELEMENTS
    assert any("loaded as float16" in warning for warning in spec.warnings)


def test_shards_are_summed_and_outweigh_the_index(folder: Path) -> None:
    for part, elements in (("a", 1000), ("b", ELEMENTS - 1000)):
        _write(folder / f"{part}.safetensors", elements)
    index = {
        "metadata": {"total_size": 7},
        "weight_map": {"x": "a.safetensors", "y": "b.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    files = (folder / "a.safetensors", folder / "b.safetensors")
    assert stored_weights(folder) == StoredWeights(2 * ELEMENTS, files)


def test_an_index_alone_counts_by_its_total(folder: Path) -> None:
    index = {"metadata": {"total_size": 2 * ELEMENTS + 8}, "weight_map": {"x": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = load_model(str(folder))
    assert weight_bytes(spec, 16).total == 2 * ELEMENTS + 8
    assert any("index declares" in warning for warning in spec.warnings)


@pytest.mark.parametrize("weight_map", [None, [], {"x": 3}, {"x": None}])
def test_an_index_that_names_no_files_is_said(folder: Path, weight_map: object) -> None:
    index = {"metadata": {"total_size": 8}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = load_model(str(folder))
    assert spec.stored_weight_bytes is None
    assert any("does not say which files" in warning for warning in spec.warnings)


def test_files_of_which_some_are_missing_are_said(folder: Path) -> None:
    _write(folder / "a.safetensors", 1000)
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = load_model(str(folder))
    assert spec.stored_weight_bytes is None
    said = "1 of the 2 weight files are not here (b.safetensors)"
    assert any(said in warning for warning in spec.warnings)


def test_shards_outside_the_folder_are_not_followed(folder: Path) -> None:
    _write(folder / "outside.safetensors", 1000)
    inside = folder / "inside"
    inside.mkdir()
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (inside / "model.safetensors.index.json").write_text(json.dumps(index))
    assert stored_weights(inside) is None


def test_a_file_of_the_right_size_is_no_safetensors_by_that(folder: Path) -> None:
    content = struct.pack("<Q", 4) + b"nope" + bytes(2 * ELEMENTS)
    (folder / "model.safetensors").write_bytes(content)
    spec = load_model(str(folder))
    assert spec.stored_weight_bytes is None
    assert any("not a safetensors file" in warning for warning in spec.warnings)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x01\x02", id="short"),
        pytest.param(struct.pack("<Q", 2**50) + b"{}", id="header-too-long"),
        pytest.param(struct.pack("<Q", 4) + b"nope", id="header-no-json"),
        pytest.param(struct.pack("<Q", 9) + b'{"a": 12}', id="entry-no-object"),
        pytest.param(
            struct.pack("<Q", 57) + b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[9,"a"]}}  ',
            id="offsets-no-numbers",
        ),
    ],
)
def test_broken_weights_do_not_stop_a_plan(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    spec = load_model(str(folder))
    assert spec.stored_weight_bytes is None
    assert any("its size is not used" in warning for warning in spec.warnings)
