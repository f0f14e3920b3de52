"""`kvpareto calibrate` from outside: the tiny model on the CPU, profiles, mistakes, Ctrl-C."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kvpareto.calibration.design.options import ASKED
from kvpareto.calibration.records.record_file import LAYERS, ROWS, Record, read_records
from kvpareto.cli import run
from kvpareto.planner import user_data
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from tests.support import data_files

STORIES = str(data_files.STORIES)
LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
KILLS, RUNS = 1, "4"
COMMAND = ["calibrate", "-m", STORIES, "--context", "256", "--tasks", "arithmetic", "--items", "4"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the tiny model was calibrated with four runs."""
    found = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVPARETO_HOME", str(found))
        assert run([*COMMAND, "--runs", RUNS]) == 0
    return found


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "KVPARETO_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def test_calibrate_then_plan(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(home))
    plan = ["plan", "-m", STORIES, "--budget", "2GB", "--context", "256", "--output", "16"]
    assert run([*plan, "--json"]) == 0
    frontier = json.loads(capsys.readouterr().out)["frontier"]
    assert {point["accuracy"]["provenance"] for point in frontier} == {"calibrated"}
    assert run(["profiles", "list", "--json"]) == 0
    (name,) = json.loads(capsys.readouterr().out)["calibrations"]
    assert run(["profiles", "show", name]) == 0
    assert f"{RUNS} (0 rows failed)" in capsys.readouterr().out


def test_measured_rows_move_the_prediction_to_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight channels a head lose far more at 2 bits than any published model says."""
    spec = load_model(STORIES)
    monkeypatch.setenv("KVPARETO_HOME", str(home))
    rows = read_records(calibrations.folder_of(spec) / ROWS)
    kept = {r.config: r.retention for r in rows if r.task == "divergence"}
    predictor = calibrations.find(spec)
    assert predictor is not None
    assert set(predictor.payload["held_out"]) == {"rows", "mae", "coverage"}
    assert kept["w16a16-k16v16"] == 1.0
    assert kept["w16a16-k8v8"] == pytest.approx(1.0, abs=0.02)
    assert kept["w16a16-k2v16"] is not None
    assert kept["w16a16-k2v16"] < 0.5
    assert accuracy.predict(spec, Configuration(k_bits=2, v_bits=16), 256).retention < 0.5


def test_rows_carry_bytes_times_and_environment(home: Path) -> None:
    rows = read_records(next(home.glob("calibrations/*/rows.jsonl")))
    assert len({row.key for row in rows}) == len(rows)
    assert [row.task for row in rows].count(LAYERS) == 1
    for row in rows:
        if row.task == LAYERS:
            continue
        assert row.memory is not None
        assert row.memory.weights == 4 * 260_032 + 2 * 16  # float32, and RoPE's frequencies
        assert row.environment.torch == torch.__version__
        assert (row.ttft_s or 1) > 0 < (row.tpot_s or 1)
    sizes = {row.config: row.memory.kv for row in rows if row.memory}
    assert sizes["w16a16-k4v4"] < sizes["w16a16-k2v16"] < sizes["w16a16-k16v16"]


def test_export_and_import(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stories.json"
    monkeypatch.setenv("KVPARETO_HOME", str(home))
    assert run(["profiles", "export", "stories260K-hf", "-o", str(file)]) == 0
    assert run(["profiles", "import", str(file)]) == 2  # it is here already
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "other"))
    assert run(["profiles", "import", str(file)]) == 0
    here, there = (
        {
            path.name: path.read_bytes()
            for path in base.glob("calibrations/*/*.json*")
            if path.name != ASKED
        }
        for base in (home, tmp_path / "other")
    )
    assert here == there
    assert set(here) == {"rows.jsonl", "accuracy.json", "meta.json"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "something else"),
        (("name",), "../../evil-00000000"),
        (("name",), "stories260k-hf-00000000"),
        (("rows", 0, "outcome"), "fine"),
        (("accuracy", "z"), {}),
        (("accuracy", "level"), "high"),
        (("meta",), None),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_damaged_import_is_refused(
    path: tuple[Any, ...],
    value: Any,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "stories.json"
    monkeypatch.setenv("KVPARETO_HOME", str(home))
    assert run(["profiles", "export", "stories260K-hf", "-o", str(file)]) == 0
    capsys.readouterr()
    document = json.loads(file.read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(document))
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "other"))
    assert run(["profiles", "import", str(file)]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert not list((tmp_path / "other").glob("calibrations/*/*.json*"))


def rows_of(home: Path, process: subprocess.Popen[str], least: int = 2) -> Path:
    """The rows of a running calibration, as soon as there are so many."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        for path in home.glob("calibrations/*/rows.jsonl"):
            if path.read_bytes().count(b"\n") >= least:
                return path
        time.sleep(0.02)
    raise AssertionError("no rows were written")


def started(home: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kvpareto", *COMMAND, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    )


def test_killed_calibrations_resume_to_the_same_rows_and_profile(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/stress does so hundreds of times."""
    rng, kept = random.Random(0), []
    for death in range(KILLS):
        process = started(tmp_path, "--runs", RUNS, *(["--resume"] if death else []))
        path = rows_of(tmp_path, process, least=len(kept) + 1)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
        rows = read_records(path)
        assert rows[: len(kept)] == kept, "a row that was on the disk is gone"
        kept = rows
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    assert run([*COMMAND, "--resume"]) == 0  # with the terms it had
    (whole,) = home.glob("calibrations/*")
    (killed,) = tmp_path.glob("calibrations/*")
    assert read_records(killed / ROWS)[: len(kept)] == kept
    assert without_times(read_records(killed / ROWS)) == without_times(read_records(whole / ROWS))
    assert (killed / "accuracy.json").read_bytes() == (whole / "accuracy.json").read_bytes()


def without_times(records: list[Record]) -> list[Record]:
    gone = {"started": "", "ended": "", "ttft_s": None, "tpot_s": None, "environment": None}
    return [record.model_copy(update=gone) for record in records]


def test_a_damaged_profile_is_said_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    folder = calibrations.folder_of(LLAMA)
    folder.mkdir(parents=True)
    estimate = ["estimate", "-m", LLAMA.name, "--config", "w16a16-k4v4", "--offline"]
    assert run(estimate) == 0
    capsys.readouterr()
    for text in ("", "[]", "{}", '{"own": "x", "models": {}}', '{"own": "x", "models": {"x": 1}}'):
        (folder / "accuracy.json").write_text(text)
        assert run(estimate) == 2
        assert "is damaged" in capsys.readouterr().err.splitlines()[0]


def test_ctrl_c_keeps_the_rows_and_exits_130(tmp_path: Path) -> None:
    process = started(tmp_path)
    try:
        rows = rows_of(tmp_path, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    kept = len(read_records(rows))
    assert err.splitlines()[-1] == (
        f"error: interrupted; {kept} rows are kept, and --resume continues"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["-m", "meta-llama/Llama-3.1-8B-Instruct", "--device", "cpu"], 3, "too many to calibrate"),
        (["-m", STORIES, "--device", "cuda"], 3, "no CUDA GPU"),
        (["-m", STORIES, "--device", "tpu"], 2, "no device is called 'tpu'"),
        (["-m", STORIES, "--runs", "0"], 2, "--runs 0 measures nothing"),
        (["-m", STORIES, "--minutes", "-1"], 2, "--minutes -1 is no time"),
        (["-m", STORIES, "--tasks", "juggling"], 2, "no task is called 'juggling'"),
        (["-m", STORIES, "--context", "long"], 2, "not a number of tokens"),
        (["-m", "deepseek-ai/DeepSeek-V3.2"], 2, "cannot run deepseek-ai/DeepSeek-V3.2"),
    ],
    ids=lambda value: " ".join(value)[-30:] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_a_hint(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    assert run(["calibrate", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")


def test_without_the_extra_it_names_the_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert run(["calibrate", "-m", STORIES]) == 3
    assert "[calibrate]" in capsys.readouterr().err


def test_home_is_where_platformdirs_would_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("KVPARETO_HOME")
    for data in ("", "/somewhere/data"):
        monkeypatch.setenv("XDG_DATA_HOME", data)
        assert user_data.home() == platformdirs.user_data_path("kvpareto", appauthor=False)


@pytest.mark.usefixtures("few_published_rows")
def test_a_verification_is_no_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row that `verify` writes does not stand in the way of the first calibration."""
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    small = ["-m", STORIES, "--context", "256", "--tasks", "arithmetic", "--items", "2"]
    typed = ["--config", "w16a16-k8v8", "--budget", "2GB", "--output", "8", "--device", "cpu"]
    assert run(["verify", *small, *typed, "--quick"]) == 0
    assert run(["calibrate", *small, "--runs", "2", "--device", "cpu"]) == 0
    assert run(["calibrate", *small, "--runs", "2", "--device", "cpu"]) == 2
    assert "is calibrated already" in capsys.readouterr().err
