"""Files a person names: written whole, links kept, nothing but regular files, no litter."""

import os
import stat
import threading
from pathlib import Path

import pytest

from kvpareto.planner import whole_file
from kvpareto.planner.errors import BadInput
from kvpareto.planner.reading import read_at_most
from kvpareto.planner.whole_file import check_output, check_target, write_whole


def test_a_file_is_written_and_replaced_with_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_whole(file, "one")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    file.chmod(0o640)
    write_whole(file, "twö")
    assert file.read_text("utf-8") == "twö"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("real", "not-there-yet"):
        link = tmp_path / f"to-{name}"
        link.symlink_to(Path("d") / name)
        write_whole(link, "new")
        assert link.is_symlink()
        assert (tmp_path / "d" / name).read_text() == "new"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "it is a folder"), (".", "it is a folder"), ("/", "it is a folder"),
        ("/dev/null", "no regular file"), ("/dev/stdout", "no regular file"),
        ("/proc/self/status", "no regular file"), ("fifo", "it is a pipe"),
        ("loop", "circle"), ("nowhere/x", "there is no folder"), ("a\0b", "cannot write"),
        ("file/x", "Not a directory"), ("x" * 300, "cannot write"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused_in_one_line(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    Path("file").touch()
    before = sorted(os.listdir())
    with pytest.raises(BadInput, match=says) as caught:
        write_whole(Path(name), "text")
    assert caught.value.hint
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_failure_leaves_the_old_file_and_no_litter(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plan.json"
    file.write_text("old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_file.os, call, full)
    with pytest.raises(BadInput, match="No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_bytes_are_on_the_disk_before_they_take_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(whole_file.os, "fsync", lambda d: (order.append("sync"), fsync(d)))
    monkeypatch.setattr(
        whole_file.os, "replace", lambda a, b: (order.append("name"), replace(a, b))
    )
    write_whole(tmp_path / "x", "text")
    assert order == ["sync", "name", "sync"]  # the file, its name, the folder


def test_parallel_writers_leave_one_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    texts = [str(i) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_whole, args=(file, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() in texts
    assert list(tmp_path.iterdir()) == [file]


def test_a_target_is_checked_without_being_touched(tmp_path: Path) -> None:
    assert check_target(tmp_path / "new") == tmp_path / "new"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "is_replaced"),
    [
        ('{"schema": 1, "recommended": {}}', True), ('{"schema": 1, "verified": true}', True),
        ("<!doctype html><title>x: kvpareto</title>", True), ("", True),
        ('{"model_type": "llama"}', False), ('{"schema": 1}', False), ("GGUF", False),
        ("<!doctype html><title>mine</title>", False), ("[1]", False), ("{", False),
    ],
)  # fmt: skip
def test_only_own_documents_are_replaced(text: str, is_replaced: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    if is_replaced:
        assert check_output(file) == file
        with pytest.raises(BadInput, match="this command reads it"):
            check_output(file, None, tmp_path / "." / "file")
    else:
        with pytest.raises(BadInput, match="kvpareto did not write it") as caught:
            check_output(file)
        assert caught.value.hint
    assert file.read_text() == text


def test_a_full_disk_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(BadInput, match="the disk is full") as caught:
        write_whole(tmp_path / "plan.json", "new")
    assert "make room" in caught.value.hint


def test_a_pipe_that_has_nothing_yet_is_no_file_of_data() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    try:
        with open(read, "rb", buffering=0) as file:
            with pytest.raises(OSError, match="no file of data"):
                read_at_most(file, 4)
            os.write(write, b"data")
            assert read_at_most(file, 4) == b"data"
    finally:
        os.close(write)
