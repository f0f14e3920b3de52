"""Rows outlive any death of the process that writes them, and nobody else writes meanwhile."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvpareto.calibration.announcement import announce_rows
from kvpareto.calibration.records.lock import ProfileLock
from kvpareto.calibration.records.record_file import (
    LOCK,
    ROWS,
    RecordFile,
    of_other_versions,
    parse_record,
    read_records,
)
from kvpareto.planner.errors import BadInput
from tests.support.record_writer import ENVIRONMENT, row

WRITER = Path(__file__).parents[2] / "support/record_writer.py"
KILLS = 20


def start_writer(folder: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(folder), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_row_is_lost_to_kill_9_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(0)
    promised: set[int] = set()
    count = 100_000  # never reached before the last run
    for _ in range(KILLS):
        writer = start_writer(tmp_path, count)
        assert writer.stdout is not None
        promised.add(int(writer.stdout.readline()))
        time.sleep(rng.uniform(0, 0.05))
        writer.kill()
        # what it said before it died, whole lines only
        said, _ = writer.communicate()
        promised |= {int(line) for line in said.splitlines(keepends=True) if line.endswith("\n")}
        assert writer.returncode == -9
    kept = [record.seed for record in read_records(tmp_path / ROWS)]
    assert len(kept) == len(set(kept)), "a row was measured twice"
    assert promised <= set(kept), "a row that was on the disk is gone"
    count = max(kept) + 5
    writer = start_writer(tmp_path, count)
    writer.communicate()
    assert writer.returncode == 0
    whole = read_records(tmp_path / ROWS)
    assert [record.seed for record in whole] == list(range(count))
    assert whole == [row(number) for number in range(count)]


@pytest.mark.parametrize(
    "tail",
    [b'{"schema":1,"mod', b"\0" * 300, b"\0\0\0\n", b'{"schema":1,\n'],
    ids=["cut", "zeros", "zeros-with-end", "cut-with-end"],
)
def test_a_torn_last_line_is_set_aside(tail: bytes, tmp_path: Path) -> None:
    with RecordFile(tmp_path) as file:
        for number in range(3):
            file.append(row(number))
        assert not file.torn
    path = tmp_path / ROWS
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert len(read_records(path)) == 3  # a reader passes it over and changes nothing
    assert path.read_bytes() == whole + tail
    with RecordFile(tmp_path) as file:
        assert file.torn
        assert [record.seed for record in file.records] == [0, 1, 2]
        file.append(row(3))
    assert path.with_name(ROWS + ".torn").read_bytes() == tail.rstrip(b"\n") + b"\n"
    assert [record.seed for record in read_records(path)] == [0, 1, 2, 3]


def test_a_damaged_row_in_the_middle_is_named(tmp_path: Path) -> None:
    lines = [row(number).model_dump_json(by_alias=True) for number in range(3)]
    lines[1] = lines[1].replace('"outcome":"ok"', '"outcome":"fine"')
    (tmp_path / ROWS).write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match=r"line 2 is not a calibration row: outcome"):
        read_records(tmp_path / ROWS)


@pytest.mark.parametrize(
    "damage",
    [('"schema":1', '"schema":2'), ('"score":0.5', '"score":NaN'), ('"seed":7', '"sead":7')],
    ids=["schema", "nan", "field"],
)
def test_rows_are_validated(damage: tuple[str, str]) -> None:
    line = row(7).model_dump_json(by_alias=True)
    assert parse_record(line, "here") == row(7)
    assert damage[0] in line
    with pytest.raises(BadInput, match="here is not a calibration row"):
        parse_record(line.replace(*damage), "here")


def test_two_processes_cannot_write_one_profile(tmp_path: Path) -> None:
    writer = start_writer(tmp_path, 10**6)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        with (
            pytest.raises(BadInput, match=f"by process {writer.pid} on .*, since 20"),
            RecordFile(tmp_path),
        ):
            pass
    finally:
        writer.kill()
        writer.communicate()
    with RecordFile(tmp_path) as file:  # its lock died with it
        assert file.records


def test_a_failed_attempt_leaves_the_holder_named(tmp_path: Path) -> None:
    with ProfileLock(tmp_path / LOCK):
        for _ in range(2):
            with pytest.raises(BadInput, match="by process"), ProfileLock(tmp_path / LOCK):
                pass
    with ProfileLock(tmp_path / LOCK):
        pass


def test_an_unwritable_home_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadInput, match="cannot write") as caught,
        RecordFile(tmp_path / "file" / "x"),
    ):
        pass
    assert "KVPARETO_HOME" in caught.value.hint


def test_rows_of_other_versions_are_kept_and_told_apart(tmp_path: Path) -> None:
    older = ENVIRONMENT.model_copy(update={"torch": "2.11.0"})
    with RecordFile(tmp_path) as file:
        file.append(row(0, environment=older))
        file.append(row(1))
    records = read_records(tmp_path / ROWS)
    assert [record.seed for record in records] == [0, 1]
    assert [record.seed for record in of_other_versions(records, ENVIRONMENT)] == [0]


def test_rows_that_compare_other_positions_of_a_text_are_told(tmp_path: Path) -> None:
    of_text = {"task": "divergence", "context": 4096}
    said: list[str] = []
    with RecordFile(tmp_path) as file:
        file.append(row(0, **of_text, details={"positions": 3 * 255, "window": 4096, "tail": 256}))
        announce_rows(file, ENVIRONMENT, said.append)
        assert not said
        file.append(row(1, **of_text, details={"positions": 3 * 2047, "window": 4096}))
        announce_rows(file, ENVIRONMENT, said.append)
    assert len(said) == 1
    assert said[0].startswith("1 rows compare more of the text than its end")
    assert str(tmp_path) in said[0]
