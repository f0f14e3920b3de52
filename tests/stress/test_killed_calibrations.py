"""Kill a calibration with SIGKILL at random moments, resume it, and compare with one that lived.

    python -m pytest -m slow -s tests/stress/test_killed_calibrations.py

A whole calibration of the tiny model is the standard. Then calibrations are begun anew, and each
process that works on one is killed after a random time, until one lives to the end; until so many
were killed. After every death no row that was on the disk may be gone or changed, and in the end
rows (but for their times) and accuracy.json must equal the standard's. Processes are forked from
one that has imported everything, so that the moments fall into measuring and fitting.
"""

import os
import random
import signal
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import kvpareto.calibration.calibrate
import kvpareto.calibration.design.time_estimate  # noqa: F401 - imported before the processes are forked
from kvpareto import cli
from kvpareto.calibration.records.record_file import ROWS, Record, read_records
from tests.support.data_files import STORIES

COMMAND = ("calibrate", "-m", str(STORIES), "--context", "256", "--tasks", "arithmetic")
DEATHS = 200
TERMS = ("--items", "4", "--runs", "6", "--device", "cpu", "--json")


def start(home: Path, resume: bool) -> int:
    """Fork a calibration in `home`; its process id."""
    child = os.fork()
    if child:
        return child
    os.environ["KVPARETO_HOME"] = str(home)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(cli.run([*COMMAND, *TERMS, *(["--resume"] if resume else [])]))


def ended(child: int, seconds: float | None) -> int | None:
    """The exit code of a child that ends within `seconds` (None: whenever); else it is killed."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        time.sleep(0.002)


def folder_in(home: Path) -> Path | None:
    return next(home.glob("calibrations/*"), None)


def rows_in(home: Path) -> list[Record]:
    folder = folder_in(home)
    return read_records(folder / ROWS) if folder is not None else []


def without_times(records: list[Record]) -> list[Record]:
    """What depends neither on the clock nor on what is committed meanwhile."""
    gone = {"started": "", "ended": "", "ttft_s": None, "tpot_s": None}
    return [
        record.model_copy(
            update=gone | {"environment": record.environment.model_copy(update={"commit": None})}
        )
        for record in records
    ]


def difference(found: list[Record], expected: list[Record]) -> str:
    """Where two lists of rows part, in words; empty where they do not."""
    for ours, theirs in zip(found, expected, strict=False):
        for name in Record.model_fields:
            if getattr(ours, name) != getattr(theirs, name):
                return f"{name} of {ours.key} is {getattr(ours, name)}, not {getattr(theirs, name)}"
    return "" if len(found) == len(expected) else f"{len(found)} rows, not {len(expected)}"


def kill_until(home: Path, rng: random.Random, whole: float, most: int) -> int:
    """Run a calibration in `home` to its end through at most `most` deaths; how many it died."""
    deaths, kept = 0, []
    while True:
        child = start(home, resume=bool(rows_in(home)))
        code = ended(child, rng.uniform(0, whole) if deaths < most else None)
        now = rows_in(home)
        if now[: len(kept)] != kept:
            pytest.fail(f"a row that was on the disk is gone, after {deaths + 1} deaths")
        kept = now
        if code is None:
            deaths += 1
        elif code:
            pytest.fail(f"a resumed calibration ended with exit code {code}")
        else:
            return deaths


@pytest.mark.slow
def test_no_death_loses_a_row(tmp_path: Path) -> None:
    rng = random.Random(0)
    standard = tmp_path / "standard"
    begun = time.monotonic()
    assert ended(start(standard, resume=False), None) == 0
    whole = time.monotonic() - begun
    expected = without_times(rows_in(standard))
    folder = folder_in(standard)
    assert folder is not None
    profile = (folder / "accuracy.json").read_bytes()
    deaths = lives = 0
    while deaths < DEATHS:
        home = tmp_path / f"killed-{lives}"
        deaths += kill_until(home, rng, whole, DEATHS - deaths)
        lives += 1
        assert difference(without_times(rows_in(home)), expected) == ""
        assert (home / folder.relative_to(standard) / "accuracy.json").read_bytes() == profile
        print(f"{deaths} deaths, {lives} calibrations: rows and profile equal", flush=True)
