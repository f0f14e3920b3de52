"""Calibrations are found by what the model is: its config and its weights, not its name."""

import json
import shutil
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.calibration.design.campaign import write_profile
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.accuracy.calibrations import META, begin, folder_of, match, weights_of
from kvpareto.planner.accuracy.weights_sample import weights_fingerprint
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.finite_json import read_json
from tests.support.data_files import STORIES
from tests.support.fake_bench import LLAMA, MadeUpModel, campaign
from tests.support.record_writer import ENVIRONMENT

pytestmark = pytest.mark.usefixtures("few_published_rows")
FOUR = Configuration(k_bits=4, v_bits=4)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def model(path: Path, *, change: int | None = None) -> Path:
    """A copy of the tiny model; `change` flips a byte in the middle of that tensor."""
    shutil.copytree(STORIES, path)
    if change is not None:
        file = path / "model.safetensors"
        data = bytearray(file.read_bytes())
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        names = sorted(name for name in header if name != "__metadata__")
        start, end = header[names[change]]["data_offsets"]
        data[8 + length + (start + end) // 2] ^= 1
        file.write_bytes(data)
    return path


def calibrate(path: Path) -> Path:
    spec = load_model(str(path))
    folder = folder_of(spec)
    folder.mkdir(parents=True)
    begin(folder, spec)
    records: list[Record] = []
    campaign(MadeUpModel(), records, 3)[0].run()
    write_profile(folder, spec, records, ENVIRONMENT)
    return folder


def test_a_moved_and_renamed_model_keeps_its_calibration(tmp_path: Path) -> None:
    folder = calibrate(model(tmp_path / "mine"))
    moved = tmp_path / "elsewhere" / "other-name"
    moved.parent.mkdir()
    (tmp_path / "mine").rename(moved)
    found = match(load_model(str(moved)))
    assert found is not None
    assert (found.folder, found.note) == (folder, "")
    kept = accuracy.predict(load_model(str(moved)), FOUR, 4096)
    assert kept.provenance == "measured"
    assert not any("by the config" in note for note in kept.notes)


@pytest.mark.parametrize("change", [0, 7, 20])
def test_other_weights_of_the_same_config_and_name_do_not_share_it(
    change: int, tmp_path: Path
) -> None:
    first = calibrate(model(tmp_path / "a" / "mine"))
    other = model(tmp_path / "b" / "mine", change=change)
    spec = load_model(str(other))
    assert match(spec) is None
    assert accuracy.predict(spec, FOUR, 4096).provenance != "measured"
    second = calibrate(other)
    assert second != first
    assert second.name.endswith(first.name[-9:])
    assert folder_of(load_model(str(tmp_path / "a" / "mine"))) == first
    assert folder_of(spec) == second


def test_older_calibrations_match_by_config_with_a_note_until_resumed(tmp_path: Path) -> None:
    path = model(tmp_path / "mine")
    folder, spec = calibrate(path), load_model(str(path))
    meta = json.loads((folder / META).read_text())
    assert meta.pop("weights") == weights_of(spec)
    (folder / META).write_text(json.dumps(meta))
    found = match(spec)
    assert found is not None
    assert "calibrate -m MODEL --resume" in found.note  # of no model it would be the included one
    notes = accuracy.predict(spec, FOUR, 4096).notes
    assert any("chosen by the config alone" in note for note in notes)
    begin(folder, spec)
    found = match(spec)
    assert found is not None
    assert found.note == ""


def test_a_plan_without_the_weights_says_that_they_were_not_compared(tmp_path: Path) -> None:
    calibrate(model(tmp_path / "mine"))
    (tmp_path / "bare").mkdir()
    shutil.copy(STORIES / "config.json", tmp_path / "bare")
    found = match(load_model(str(tmp_path / "bare")))
    assert found is not None
    assert "not on this machine" in found.note
    calibrate(model(tmp_path / "second", change=3))
    with pytest.raises(BadInput, match="several calibrations"):
        match(load_model(str(tmp_path / "bare")))


def test_a_profile_begun_with_other_weights_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = calibrate(model(tmp_path / "mine"))
    with pytest.raises(BadInput, match="other weights"):
        begin(folder, load_model(str(model(tmp_path / "tuned", change=1))))


def test_hub_ids_without_weights_are_told_apart_by_name(home: Path) -> None:
    folder = folder_of(LLAMA)
    folder.mkdir(parents=True)
    begin(folder, LLAMA)
    assert match(LLAMA) is not None
    assert match(replace(LLAMA, name="other/tuned")) is None
    assert match(replace(LLAMA, name="copy/llama-3.1-8b-instruct")) is not None


def test_sharding_does_not_change_a_fingerprint_and_is_cheap(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = model(tmp_path / "mine")
    whole = weights_fingerprint(path)
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, path / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    started = time.perf_counter()
    assert weights_fingerprint(path) == whole
    assert time.perf_counter() - started < 0.5
    assert weights_fingerprint(tmp_path) is None
    (path / "model-2.safetensors").write_bytes(b"cut")
    assert weights_fingerprint(path) is None


def test_a_plan_remembers_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kvpareto.calibration.verify.cases import from_plan
    from kvpareto.cli import run

    model(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    asked = ["--budget", "2GB", "--context", "256", "--output", "8", "--save", "p.json"]
    assert run(["plan", "mine", *asked]) == 0
    assert json.loads(Path("p.json").read_text())["model_path"] == str(tmp_path / "mine")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    assert from_plan(tmp_path / "p.json", None, True).spec.name == "mine"
    (tmp_path / "mine").rename(tmp_path / "renamed")
    with pytest.raises(BadInput, match="not there any more") as caught:
        from_plan(tmp_path / "p.json", None, True)
    assert "--model" in caught.value.hint
    assert from_plan(tmp_path / "p.json", str(tmp_path / "renamed"), True).spec.name == "renamed"
    assert run(["plan", "Qwen/Qwen3-8B", "--budget", "12GB", "--save", "q.json"]) == 0
    assert json.loads(Path("q.json").read_text())["model_path"] is None


def test_read_json_takes_regular_files_only(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "deep").write_text('{"a":' * 100_000)
    for name in ("fifo", "deep", "missing"):
        assert read_json(tmp_path / name) is None
