"""A disk that is full: whatever was being written, the error names its path.

The system names no file where a write fails. A limit on the size of this process's files stands in
for the disk while a command runs, and an fsync that fails for the kinds of files that only a longer
run writes.
"""

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvpareto.calibration.records.profile_files import replace_file
from kvpareto.calibration.records.receipt_rows import append_receipt
from kvpareto.calibration.records.record_file import RecordFile
from kvpareto.calibration.records.torn_line import set_torn_line_aside
from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.planner.whole_file import write_whole, writing
from kvpareto.report.failure import failure_of
from tests.support.data_files import STORIES

ROOT = Path(__file__).parents[2]
COMMANDS = [
    (["plan", str(STORIES), "--budget", "2GB", "--save", "plan.json"], "plan.json"),
    (["calibrate", "-m", str(STORIES), "--runs", "1", "--device", "cpu"], "rows.lock"),
]


@contextmanager
def full_disk() -> Iterator[None]:
    """Files that this process writes have no room."""
    resource = pytest.importorskip("resource", reason="Windows limits no file's size")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(("command", "path"), COMMANDS, ids=[c[0][0] for c in COMMANDS])
def test_a_command_that_cannot_write_names_the_path(
    command: list[str], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for library in ("torch", "transformers", "sklearn.linear_model") * (command[0] != "plan"):
        pytest.importorskip(library)  # importing writes files too
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    with full_disk():
        code = run([*command, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (code, document["exit_code"]) == (2, 2), document
    assert document["error"].startswith("cannot write "), document
    assert path in document["error"]
    assert not list(tmp_path.rglob("plan.json"))


def _torn(folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(b'{"a": 1}\n{cut')
    set_torn_line_aside(folder / "rows.jsonl")


def _opened(folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(b"{cut")
    with RecordFile(folder):
        pass


WRITERS: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: write_whole(folder / "plan.json", "{}"), "plan.json"),
    (lambda folder: replace_file(folder / "accuracy.json", "{}"), "accuracy.json"),
    (lambda folder: append_receipt("vllm", {"a": 1}), "vllm/runs.jsonl"),
    (_torn, "rows.jsonl.torn"),
    (_opened, "rows.jsonl.torn"),
]


@pytest.mark.parametrize(
    ("write", "path"), WRITERS, ids=["plan", "profile", "receipt", "torn", "rows"]
)
def test_every_writer_names_its_path(
    write: Callable[[Path], object], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="the disk is full") as found:
        write(tmp_path)
    assert f"cannot write {tmp_path / path}: " in found.value.message
    assert "make room on the disk" in found.value.hint


def test_a_library_that_meets_a_full_disk_in_its_own_words_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "maps.safetensors"
    with pytest.raises(BadInput, match=r"maps\.safetensors: the disk is full"), writing(path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError


def test_a_library_without_room_for_its_temporary_files_is_not_called_broken() -> None:
    def imported(error: OSError) -> OSError:
        try:
            exec("raise error", {"__name__": "torch._lowrank", "error": error})
        except OSError as raised:
            return raised
        raise AssertionError

    said = "[Errno 2] No usable temporary directory found in ['/tmp']"
    for error in (OSError(errno.ENOSPC, "full"), FileNotFoundError(errno.ENOENT, said[10:])):
        found = failure_of(imported(error))
        assert (found.code, "torch" in found.message) == (2, False)
        assert "make room on the disk" in found.hint
    assert failure_of(imported(OSError("libcudart.so.12: cannot open"))).code == 3


def test_a_file_that_the_system_names_is_named() -> None:
    said = failure_of(OSError(errno.ENOSPC, "No space left on device", "/tmp/x")).message
    assert said == "the disk is full: /tmp/x"
    assert failure_of(PermissionError(13, "Permission denied", "/a")).message == (
        "Permission denied: /a"
    )
