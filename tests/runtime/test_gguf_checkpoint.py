"""GGUF files as checkpoints: what is refused before anything is read, and their fingerprint."""

import sys
from pathlib import Path

import pytest

from kvpareto.planner.accuracy.calibrations import weights_of
from kvpareto.planner.errors import BadInput, MissingDependency
from kvpareto.planner.install import install_command
from kvpareto.planner.load_model import load_model
from kvpareto.runtime import load
from kvpareto.runtime.gguf_checkpoint import check_whole
from tests.support.gguf_files import LLAMA, llama_tensors, write_gguf


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "m.gguf", LLAMA, llama_tensors())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependency, match="needs gguf, which is not installed") as error:
        load(str(path), "w16a16-k8v8-g64", context=64, output=8, device="cpu")
    assert error.value.hint == f"run {install_command('gguf')}"


def test_random_weights_are_of_a_config(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", LLAMA, llama_tensors())
    with pytest.raises(BadInput, match="weights of its own"):
        load(str(path), "w16a16-k8v8-g64", context=64, device="cpu", random_weights=True)


def test_a_split_is_planned_and_not_run(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2))
    write_gguf(first, {**LLAMA, "split.count": 2, "split.no": 0}, llama_tensors(1))
    write_gguf(second, {"split.count": 2, "split.no": 1}, llama_tensors(1, first=1))
    spec = load_model(str(first))
    with pytest.raises(BadInput, match="one of several parts"):
        check_whole(first, spec)


def test_two_fine_tunes_have_two_fingerprints(tmp_path: Path) -> None:
    one = write_gguf(tmp_path / "one.gguf", LLAMA, llama_tensors())
    two = write_gguf(tmp_path / "two.gguf", LLAMA, llama_tensors())
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(one.read_bytes())
    with two.open("r+b") as file:
        file.seek(two.stat().st_size // 2)
        file.write(bytes(range(1, 256)) * 64)
    prints = [weights_of(load_model(str(path))) for path in (one, two, copy)]
    assert prints[0] == prints[2] != prints[1]
    assert prints[0] is not None
