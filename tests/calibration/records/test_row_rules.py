"""What a row may be, how its file is written, and who may write it."""

import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from kvpareto.calibration.records import lock as locks
from kvpareto.calibration.records import record_file
from kvpareto.calibration.records.lock import ProfileLock
from kvpareto.calibration.records.profile_files import replace_file, to_text
from kvpareto.calibration.records.record_file import (
    LOCK,
    ROWS,
    Environment,
    RecordFile,
    now,
    of_other_versions,
    parse_record,
    read_records,
)
from kvpareto.planner.errors import BadInput
from tests.support.record_writer import ENVIRONMENT, row


def line(number: int) -> bytes:
    return (row(number).model_dump_json(by_alias=True) + "\n").encode()


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        row(0).score = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        ENVIRONMENT.torch = "3"


def test_what_a_row_leaves_out_is_not_known() -> None:
    short = row(0, stderr=None, items=(), score=None)
    unknown = ["reason", "reference", "retention", "retention_sd", "memory", "ttft_s", "tpot_s"]
    unknown += ["score", "stderr"]
    assert [getattr(short, name) for name in unknown] == [None] * len(unknown)
    assert short.details == {}
    assert short.items == ()
    assert row(7).key == ("w16a16-k4v4", 1024, "needle", 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": {"weights": 0, "kv": -1}},
        {"memory": {"weights": 1}},
        {"tpot_s": -0.001},
        {"outcome": "fine"},
        {"schema": 2},
        {"outcome": "ok", "context": 0},
        {"context": 1024, "details": {"window": 0.5}},
        {"task": "layers", "items": (1.0,)},
        {"config": "w4"},
    ],
    ids=str,
)
def test_rows_that_no_run_leaves(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        row(0, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "crashed", "context": 0, "details": {"window": 0.0}},
        {"outcome": "out_of_memory", "context": 0},
        {"context": 1, "details": {"window": 1.0}},
        {"task": "needle", "items": (1.0,)},
        {"task": "layers", "items": ()},
    ],
    ids=str,
)
def test_rows_that_a_run_may_leave(changes: dict[str, object]) -> None:
    made = row(0, **changes)
    assert parse_record(made.model_dump_json(by_alias=True), "here") == made


def test_versions_are_torchs_transformers_and_ours() -> None:
    def changed(**changes: str) -> Environment:
        return ENVIRONMENT.model_copy(update=changes)

    rows = [
        row(0),
        row(1, environment=changed(gpu="another", driver="1", python="3.12", commit="abc")),
        row(2, environment=changed(torch="9")),
        row(3, environment=changed(transformers="9")),
        row(4, environment=changed(kvpareto="9")),
    ]
    assert [one.seed for one in of_other_versions(rows, ENVIRONMENT)] == [2, 3, 4]


def test_the_time_of_a_row_is_in_utc_and_milliseconds() -> None:
    time = datetime.fromisoformat(now())
    assert time.utcoffset() == timedelta(0)
    assert len(now()) == len("2026-11-23T10:00:00.000+00:00")


def test_no_file_has_no_rows_and_an_unreadable_one_is_named(tmp_path: Path) -> None:
    assert read_records(tmp_path / ROWS) == []
    with pytest.raises(BadInput, match=f"cannot read {tmp_path}"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("data", "seeds"),
    [
        (b"", []),
        (b"\n", []),
        (line(0), [0]),
        (line(0).rstrip(b"\n"), []),
        (line(0) + line(1), [0, 1]),
        (line(0) + line(1)[:-1], [0]),
        (line(0) + line(1)[:-2] + b"\n", [0]),
        (line(0) + line(1)[1:], [0]),
        (line(0) + line(1)[:40] + b"\0" + line(1)[41:], [0]),
        (line(0)[:-1] + b" \n", [0]),
    ],
)
def test_the_last_line_counts_if_it_is_whole(data: bytes, seeds: list[int], tmp_path: Path) -> None:
    path = tmp_path / ROWS
    path.write_bytes(data)
    assert [one.seed for one in read_records(path)] == seeds
    with RecordFile(tmp_path) as file:
        assert [one.seed for one in file.records] == seeds
        assert file.torn is path.with_name(ROWS + ".torn").exists()
        assert file.torn is (data != path.read_bytes())
        assert path.read_bytes() == b"".join(data.splitlines(keepends=True)[: len(seeds)])


def test_torn_lines_gather_beside_the_rows(tmp_path: Path) -> None:
    for tail in (b"{one", b"{two\n"):
        with (tmp_path / ROWS).open("ab") as file:
            file.write(tail)
        with RecordFile(tmp_path):
            pass
    assert (tmp_path / (ROWS + ".torn")).read_bytes() == b"{one\n{two\n"


def test_keys_of_the_rows_are_done(tmp_path: Path) -> None:
    with RecordFile(tmp_path) as file:
        assert file.done == set()
        file.append(row(3))
        assert file.done == {row(3).key}
    with RecordFile(tmp_path) as file:
        assert file.done == {row(3).key}


def test_nothing_is_appended_outside_of_with(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    for _ in range(2):
        with pytest.raises(ValueError, match="append outside of `with`"):
            file.append(row(0))
        with file:
            pass
    assert file.records == []


def test_a_row_that_the_disk_takes_in_pieces_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with RecordFile(tmp_path) as file, monkeypatch.context() as patch:
        patch.setattr(record_file.os, "write", lambda to, data: write(to, data[:100]))
        file.append(row(5))
    assert (tmp_path / ROWS).read_bytes() == line(5)


def test_a_full_disk_is_bad_input_and_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with RecordFile(tmp_path) as file:
        monkeypatch.setattr(record_file.os, "write", full)
        with pytest.raises(BadInput, match=r"cannot write .*: the disk is full") as error:
            file.append(row(0))
        assert "--resume" in error.value.hint
        assert file.records == []


def test_rows_that_cannot_be_read_leave_no_lock(tmp_path: Path) -> None:
    (tmp_path / ROWS).write_bytes(b"{}\n" + line(1))
    for _ in range(2):
        with pytest.raises(BadInput, match="line 1 is not a calibration row"), RecordFile(tmp_path):
            pass
    with ProfileLock(tmp_path / LOCK):
        pass


def test_an_unknown_field_is_named_by_its_place() -> None:
    text = row(0, memory={"weights": 1, "kv": 2}).model_dump_json(by_alias=True)
    with pytest.raises(BadInput, match=r"here is not a calibration row: memory\.kv "):
        parse_record(text.replace('"kv":2', '"kv":-2'), "here")


def test_a_lock_is_held_until_it_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / LOCK
    with ProfileLock(path), pytest.raises(BadInput, match="folder is being calibrated by process"):
        ProfileLock(path).__enter__()
    holder = ProfileLock(path)
    with holder:
        pass
    holder.__exit__(None, None, None)  # leaving twice does nothing
    with ProfileLock(path):
        said = json.loads(path.read_text())
    assert said.keys() == {"process", "host", "since"}
    assert datetime.fromisoformat(said["since"]).utcoffset() == timedelta(0)
    assert len(said["since"]) == len("2026-11-23T10:00:00+00:00")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": 1}'])
def test_a_holder_that_has_not_said_who_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / LOCK
    with ProfileLock(path):
        path.write_text(text)
        with pytest.raises(BadInput, match=r"by another process$"):
            ProfileLock(path).__enter__()


def test_a_failed_attempt_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []

    def busy(file: object) -> None:
        files.append(file)
        raise OSError

    monkeypatch.setattr(locks, "_acquire", busy)
    with pytest.raises(BadInput, match="is being calibrated"):
        ProfileLock(tmp_path / LOCK).__enter__()
    assert files[0].closed  # type: ignore[attr-defined]


def test_a_file_is_replaced_through_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    replace_file(link, "größer\n")
    assert link.is_symlink()
    assert real.read_bytes() == "größer\n".encode()


def test_coefficients_have_a_line_each() -> None:
    payload = {"schema": 1, "z": {"known": 1.5, "unseen": [2]}, "empty": {}}
    text = to_text(payload)
    assert json.loads(text) == payload
    assert text == (
        '{\n "schema": 1,\n "z": {\n  "known": 1.5,\n  "unseen": [2]\n },\n "empty": {\n\n }\n}\n'
    )


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {"a": {"b": float("inf")}}], ids=str)
def test_numbers_that_are_not_finite_are_not_written(payload: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_text(payload)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls: list[int] = []
    fsync = os.fsync

    def counting(descriptor: int) -> None:
        calls.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(record_file.os, "fsync", counting)
    return lambda: len(calls)


def test_each_row_is_forced_to_the_disk_once(tmp_path: Path, synced: Callable[[], int]) -> None:
    with RecordFile(tmp_path) as file:
        for number in range(3):
            before = synced()
            file.append(row(number))
            assert synced() == before + 1
