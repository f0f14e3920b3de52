"""A profile is checked wherever it is read: each field, each range, and what they give together."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.design.options import ASKED, CalibrationSettings
from kvpareto.calibration.fit.profile import fit_profile
from kvpareto.calibration.records.export import export_profile, import_profile
from kvpareto.calibration.records.profile_files import replace_file, to_text
from kvpareto.calibration.records.record_file import ROWS, Record, RecordFile, read_records
from kvpareto.cli import run
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.accuracy.calibration_files.check import check_meta, check_payload
from kvpareto.planner.accuracy.calibration_files.values import DamagedCalibration
from kvpareto.planner.errors import BadInput
from kvpareto.planner.load_model import load_model
from tests.support.fake_bench import MadeUpModel, campaign

LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
ASKED_FOR = CalibrationSettings(3, "arithmetic", (4096,), 40, 0.005, 0, None, None, ("", ""))


def _profile() -> tuple[list[Record], dict[str, Any]]:
    records: list[Record] = []
    campaign(MadeUpModel(), records, 3)[0].run()
    found = fit_profile(LLAMA, records)
    assert found is not None
    shares = [1 / 32] * 32
    found["probed"] = {"keys": shares, "values": shares, "protect": [[0], [0, 31]]}
    return records, json.loads(json.dumps(found))


RECORDS, PAYLOAD = _profile()
OWN = PAYLOAD["own"]
META = {
    "schema": 1,
    "model": LLAMA.name,
    "fingerprint": calibrations.fingerprint(LLAMA),
    "rows": len(RECORDS),
    "contexts": [4096],
    "tasks": ["arithmetic"],
    "held_out": {"rows": 4, "mae": 0.1, "coverage": 0.9},
    "environment": {"gpu": None, "python": "3.11"},
}
INF, NAN = float("inf"), float("nan")

DAMAGE: list[tuple[tuple[Any, ...], Any]] = [
    *((("schema",), value) for value in (99, 0, True, "1", None)),
    *((("level",), value) for value in (-0.1, 0.0, 1.0, 2, "high", None, True)),
    *((("z", "known"), value) for value in (INF, NAN, -1, 21, None, True)),
    (("z", "unseen"), -0.5),
    (("z",), {}),
    (("coefficients", "gamma"), [1000.0, 0.1]),
    (("coefficients", "gamma"), [1.0]),
    (("coefficients", "context"), [0.0, -1.0]),
    (("coefficients", "new"), [0.0, 1.0]),
    *((("kinds", "retrieval"), value) for value in ([1e300, 0.0], [0.0, -1.0], [-51, 0.1], "x")),
    (("population", "mean"), [0.0]),
    (("population", "names"), ["scale:plain"]),
    (("population", "covariance"), [[1.0]]),
    (("population", "covariance", 0, 0), 1e9),
    (("spread", "cache"), -1.0),
    (("spread", "misfit"), "wide"),
    (("models", OWN, "mean"), [0.0, 0.0, 0.0]),
    (("models", OWN, "mean", 0), -51.0),
    (("models", OWN, "sd", 3), -0.1),
    (("models", OWN, "shape"), [4096, 32]),
    (("models", OWN, "shape", 0), 4096.5),
    (("models", OWN, "outlier_layers"), [32]),
    (("models", OWN, "outlier_layers"), [-1]),
    (("models", OWN, "outlier_share"), 1.5),
    (("models", OWN, "provenance"), "guessed"),
    (("models", OWN, "names"), [1]),
    (("models", OWN, "family"), 3),
    (("own",), "another"),
    (("own",), None),
    (("range", "context"), [1024]),
    (("range", "context", 0), 0),
    (("range", "rows", "rotation"), -1),
    (("probed", "keys"), [0.5] * 2),
    (("probed", "values"), [0.5] * 33),
    (("probed", "keys", 0), -0.001),
    (("probed", "keys", 0), 1.001),
    (("probed", "values", 0), 0.9),  # together more than the whole
    (("probed", "protect"), [[32]]),
    (("probed", "protect"), [[-1]]),
    (("probed", "protect"), [[3, 3]]),
    (("probed", "protect"), [["0"]]),
    (("measured", 0, "config"), "w16a16-k5v"),
    (("measured", 0, "config"), "w16a16-k4v4+protect{32}:k8v8"),
    (("measured", 0, "context"), 0),
    (("measured", 0, "kinds", "retrieval"), [-0.1, 0.0]),
    (("measured", 0, "kinds", "retrieval"), [11, 0.0]),
    (("measured", 0, "kinds", "retrieval"), [0.5, -0.1]),
    (("broken",), [{"config": "w16a16-k2v2", "context": -4}]),
    (("broken",), [{"config": "w16a16-k2v2"}]),
    (("breaks",), 0),
    (("breaks",), "4096"),
    (("own_noise",), {"z": 1.0, "values": {}, "formats": []}),
]
IDS = [".".join(map(str, place)) + f"={value!r:.20}" for place, value in DAMAGE]


def damaged(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = deepcopy(PAYLOAD)
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return found


def test_what_a_fit_writes_is_sound() -> None:
    assert check_payload(PAYLOAD).payload == PAYLOAD
    check_meta(META)


@pytest.mark.parametrize(("place", "value"), DAMAGE, ids=IDS)
def test_each_field_out_of_its_range_is_named(place: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(DamagedCalibration):
        check_payload(damaged(place, value))


@pytest.mark.parametrize("field", [name for name in PAYLOAD if name not in
    ("data", "fingerprint", "float_bias", "held_out", "measured", "breaks", "broken",
     "probed")])  # fmt: skip
def test_a_missing_field_is_damage(field: str) -> None:
    with pytest.raises(DamagedCalibration):
        check_payload({name: value for name, value in PAYLOAD.items() if name != field})


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"model": "a\x1b[31mred"},
        {"model": None},
        {"fingerprint": 7},
        {"rows": -1},
        {"contexts": "4096"},
        {"contexts": [-1]},
        {"tasks": ["x\n"]},
        {"environment": "H200"},
        {"environment": {"gpu": "\x9b"}},
        {"held_out": {"mae": 0.1}},
        {"held_out": {"mae": INF, "coverage": 0.9}},
        {"ended": "x" * 2000},
    ],
    ids=str,
)
def test_facts_that_cannot_be_shown_are_damage(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedCalibration):
        check_meta(META | change)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def at(name: str) -> Path:
        monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / name))
        return calibrations.folder_of(LLAMA)

    return at


def written(folder: Path, payload: str) -> None:
    with RecordFile(folder) as file:
        for record in RECORDS:
            file.append(record)
    replace_file(folder / "accuracy.json", payload)
    replace_file(folder / ASKED, ASKED_FOR.to_text())
    replace_file(folder / "meta.json", json.dumps(META))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(damaged(("z", "known"), INF)),
        json.dumps(PAYLOAD).replace('"level": 0.9', '"level": 1e999'),
        json.dumps(damaged(("kinds", "retrieval"), [1e300, 0.0])),
        json.dumps(damaged(("models", OWN, "shape", 0), 2048)),  # sound, but of another model
        "[" * 100_000,
    ],
    ids=["infinity", "overflow", "huge", "another", "deep"],
)
def test_plan_and_estimate_refuse_it_in_one_line(
    text: str, home: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home("here")
    written(folder, text)
    asked = ["-m", LLAMA.name, "--offline"]
    for command in (
        ["plan", *asked, "--budget", "24GB"],
        ["estimate", *asked, "--config", "w16a16-k4v4"],
    ):
        assert run(command) == 2
        error = capsys.readouterr().err.splitlines()[0]
        assert error.startswith("error: the calibration in")
        assert "is damaged" in error


def test_a_pipe_in_a_files_place_is_not_waited_for(home: Callable[[str], Path]) -> None:
    folder = home("here")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "accuracy.json")
    with pytest.raises(BadInput, match="is damaged"):
        calibrations.find(LLAMA)


def test_what_was_asked_travels_with_the_rows(home: Callable[[str], Path], tmp_path: Path) -> None:
    here, file = home("here"), tmp_path / "out.json"
    written(here, to_text(PAYLOAD))
    assert export_profile(here.name, file) == len(RECORDS)
    there = home("there")
    assert import_profile(file) == there
    assert CalibrationSettings.read(there) == ASKED_FOR
    for name in (ROWS, "accuracy.json"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    with pytest.raises(BadInput, match="already"):
        import_profile(file)


def test_an_import_that_died_can_be_repeated(
    home: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.json"
    here = home("here")
    written(here, to_text(PAYLOAD))
    export_profile(here.name, file)
    there = home("there")
    for dies_at in range(4):
        calls: list[Path] = []

        def dying(path: Path, text: str, calls: list[Path] = calls, at: int = dies_at) -> None:
            calls.append(path)
            if len(calls) > at:
                raise OSError(5, "died")
            replace_file(path, text)

        with monkeypatch.context() as patch:
            patch.setattr("kvpareto.calibration.records.export.replace_file", dying)
            with pytest.raises(OSError, match="died"):
                import_profile(file)
    assert import_profile(file) == there
    assert read_records(there / ROWS) == RECORDS


BAD_NAMES = (
    "../x-{0}",
    "x-{0}/../../y-{0}",
    "x-{0}/",
    "x-{0}\n",
    "/x-{0}",
    "X-{0}",
    ".x-{0}",
    "{0}",
)


@pytest.mark.parametrize(
    "change",
    [
        *({"name": name.format(META["fingerprint"][:8])} for name in BAD_NAMES),  # type: ignore[index]
        {"accuracy": damaged(("kinds", "retrieval"), [1e300, 0.0])},
        {"accuracy": damaged(("fingerprint",), "0" * 16)},
        {"schema": 99},
        {"asked": {"runs": 1}},
        {"asked": json.loads(ASKED_FOR.to_text()) | {"items": 0}},
        {"asked": json.loads(ASKED_FOR.to_text()) | {"seed": -1}},
        {"meta": META | {"schema": 99}},
        {"rows": [json.loads(RECORDS[0].model_dump_json(by_alias=True)) | {"fingerprint": "0"}]},
        {"rows": [json.loads(RECORDS[0].model_dump_json(by_alias=True)) | {"schema": 2}]},
    ],
    ids=lambda change: f"{next(iter(change))}={next(iter(change.values()))!s:.30}",
)
def test_a_damaged_import_writes_nothing(
    change: dict[str, Any], home: Callable[[str], Path], tmp_path: Path
) -> None:
    file, here = tmp_path / "out.json", home("here")
    written(here, to_text(PAYLOAD))
    export_profile(here.name, file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    home("there")
    with pytest.raises(BadInput):
        import_profile(file)
    assert not (tmp_path / "there").exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["here", "out.json"]
