"""What is on the disk when a call returns: every byte of a row, and every name in its folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvpareto.calibration.records import profile_files
from kvpareto.calibration.records import record_file as records
from kvpareto.calibration.records.profile_files import replace_file, to_text
from kvpareto.calibration.records.record_file import ROWS, RecordFile, read_records
from kvpareto.planner.accuracy.key_noise.attention_noise import (
    KEY_STRUCTURES,
    TURNED,
    VALUE_STRUCTURES,
)
from kvpareto.planner.accuracy.key_noise.key_ranges import BITS, TRANSFORMS
from kvpareto.planner.errors import BadInput
from kvpareto.planner.whole_file import sync_folder
from tests.support.record_writer import row


class Disk:
    """What was asked of the system, in order: (call, inode)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, int]] = []
        for name in ("write", "fsync"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))
        replace = os.replace

        def replacing(path: str, target: Path) -> None:
            self.calls.append(("replace", os.stat(path).st_ino))
            replace(path, target)

        monkeypatch.setattr(os, "replace", replacing)

    def _noting(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def noting(descriptor: int, *arguments: object) -> object:
            self.calls.append((name, os.fstat(descriptor).st_ino))
            return call(descriptor, *arguments)

        return noting


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_row_is_forced_to_the_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RecordFile(tmp_path) as file:
        disk = Disk(monkeypatch)
        file.append(row(0))
        assert file.records == [row(0)]
        assert file.done == {row(0).key}
        assert disk.calls == [("write", inode(file.path)), ("fsync", inode(file.path))]


def test_a_new_files_name_is_forced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    folder = tmp_path / "calibrations" / "model"
    with RecordFile(folder):
        there = (folder / ROWS).exists()
    assert there
    for one in (folder, folder.parent):  # its own name is in its parent
        assert ("fsync", inode(one)) in disk.calls


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with RecordFile(tmp_path) as file:
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        file.append(row(0))
        file.append(row(1))
        monkeypatch.undo()
    assert read_records(tmp_path / ROWS) == [row(0), row(1)]


def test_a_full_disk_is_one_line_and_the_row_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with RecordFile(tmp_path) as file:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BadInput, match=r"cannot write .*No space left") as caught:
            file.append(row(0))
        assert "--resume" in caught.value.hint
        assert file.records == []
    with pytest.raises(ValueError, match="outside of `with`"):
        file.append(row(1))


@pytest.mark.parametrize("where", ["before", "within"])
def test_zeros_in_a_line_that_looks_whole_are_torn(where: str, tmp_path: Path) -> None:
    """A crash of the machine can leave a line's length, and its first and last block alone."""
    with RecordFile(tmp_path) as file:
        file.append(row(0))
    path = tmp_path / ROWS
    whole = path.read_bytes()
    line = row(1).model_dump_json(by_alias=True).encode()
    torn = line[:40] + b"\0" * 40 + line[80:] if where == "within" else b"\0" * 9 + line
    path.write_bytes(whole + torn + b"\n")
    assert read_records(path) == [row(0)]
    with RecordFile(tmp_path) as file:
        assert file.torn
        assert file.records == [row(0)]
    assert path.read_bytes() == whole
    assert path.with_name(ROWS + ".torn").read_bytes() == torn + b"\n"


def test_what_is_set_aside_is_on_the_disk_before_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ROWS
    path.write_bytes(b"{cut")
    disk = Disk(monkeypatch)
    with RecordFile(tmp_path):
        pass
    aside = path.with_name(ROWS + ".torn")
    forced = [one for call, one in disk.calls if call == "fsync"]
    assert forced.index(inode(aside)) < forced.index(inode(path))


def test_a_file_is_replaced_whole_and_forced_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "meta.json"
    path.write_text("before")
    old = inode(path)
    disk = Disk(monkeypatch)
    replace_file(path, "after")
    assert path.read_text() == "after"
    assert inode(path) != old  # a reader that has the old one open still reads all of it
    new, folder = inode(path), inode(tmp_path)
    assert disk.calls == [("fsync", new), ("replace", new), ("fsync", folder)]
    assert [one.name for one in tmp_path.iterdir()] == ["meta.json"]


def test_a_replacement_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "meta.json"
    path.write_text("before")

    def failing(*arguments: object) -> None:
        assert path.read_text() == "before"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(profile_files.os, "fsync", failing)
    with pytest.raises(BadInput, match=r"cannot write .*meta.json: Input/output"):
        replace_file(path, "after")
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["meta.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "meta.json"
    link.symlink_to(tmp_path / "real" / "meta.json")
    replace_file(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "real" / "meta.json").read_text() == "text"


def test_a_number_that_is_not_finite_is_not_written() -> None:
    assert to_text({"z": {"known": 1.5}, "level": 0.9}) == (
        '{\n "z": {\n  "known": 1.5\n },\n "level": 0.9\n}\n'
    )
    for payload in ({"z": {"known": float("inf")}}, {"level": float("nan")}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            to_text(payload)


def test_syncing_closes_what_it_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    open_, close = os.open, os.close

    def opening(*arguments: object, **named: object) -> int:
        opened.append(open_(*arguments, **named))  # type: ignore[arg-type]
        return opened[-1]

    def closing(descriptor: int) -> None:
        opened.remove(descriptor)
        close(descriptor)

    monkeypatch.setattr(profile_files.os, "open", opening)
    monkeypatch.setattr(profile_files.os, "close", closing)
    sync_folder(tmp_path)
    with RecordFile(tmp_path):
        assert len(opened) == 1
    assert opened == []
    assert records.os is profile_files.os


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config", "w16a16-k5v"),
        ("context", 0),
        ("context", -1),
        ("seed", -1),
        ("stderr", -0.1),
        ("retention_sd", -0.1),
        ("ttft_s", -1.0),
        ("memory", {"weights": -1, "kv": 0}),
        ("details", {"window": 0.0}),
        ("score", float("inf")),
        ("items", (float("nan"),)),
    ],
    ids=str,
)
def test_a_row_that_no_run_leaves_is_none(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field}|context"):
        row(0, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context", 1),
        ("seed", 0),
        ("stderr", 0.0),
        ("retention_sd", 0.0),
        ("ttft_s", 0.0),
        ("tpot_s", 0.0),
        ("memory", {"weights": 0, "kv": 0}),
        ("details", {"window": 1.0}),
    ],
    ids=str,
)
def test_the_least_that_a_run_may_leave(field: str, value: object) -> None:
    assert row(0, **{field: value}).config == "w16a16-k4v4"


def test_a_failure_may_have_read_nothing() -> None:
    assert row(0, context=0, outcome="crashed").context == 0


def test_a_probe_has_two_costs_for_a_layer() -> None:
    assert row(0, task="layers", items=(1.0, 2.0)).items == (1.0, 2.0)
    with pytest.raises(ValueError, match="for each layer"):
        row(0, task="layers", items=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("layers", [0.0, 1.5, 3.0, 1e300])
def test_a_probe_is_about_whole_layers_that_it_has(layers: float) -> None:
    with pytest.raises(ValueError, match="for each layer"):
        row(0, task="layers", items=(1.0,) * 4, details={"layers": layers})


def test_a_probe_has_a_whole_table_of_the_attention_or_none() -> None:
    keys = len(BITS) * len(TRANSFORMS) * len(KEY_STRUCTURES)
    table = (0.5,) * (keys + len(BITS) * len(TURNED) * len(VALUE_STRUCTURES))
    found = row(0, task="layers", items=(1.0, 2.0, *table), details={"layers": 1.0})
    assert found.probed_layers == 1
    for torn in (table[:-2], (*table[:-1], -1.0)):
        with pytest.raises(ValueError, match="no table of the attention"):
            row(0, task="layers", items=(1.0, 2.0, *torn), details={"layers": 1.0})
