"""An exported calibration: found by any of its names, whole, and taken over only if it is one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.design.options import ASKED, CalibrationSettings
from kvpareto.calibration.records.export import (
    export_profile,
    import_profile,
    maps_beside,
    maps_left_behind,
    maps_of,
)
from kvpareto.calibration.records.lock import ProfileLock
from kvpareto.calibration.records.record_file import LOCK, ROWS, Record, RecordFile, read_records
from kvpareto.planner.accuracy.calibrations import AFFINE
from kvpareto.planner.errors import BadInput
from kvpareto.report.profiles import show_document
from tests.support.record_writer import row

FINGERPRINT = "0" * 16
NAME = "made-up-00000000"
SETTINGS = CalibrationSettings(3, "needle", (1024,), 60, 0.005, 0, None, None, ("", ""))
META: dict[str, Any] = {"schema": 1, "model": "größe/made-up", "fingerprint": FINGERPRINT}


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make a place of calibrations the present one; its folder."""

    def enter(name: str) -> Path:
        monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / name))
        return tmp_path / name / "calibrations"

    return enter


def stored(record: Record) -> dict[str, Any]:
    """A row as a file holds it."""
    document: dict[str, Any] = json.loads(record.model_dump_json(by_alias=True))
    return document


def calibrate(folder: Path, rows: int = 3) -> None:
    with RecordFile(folder) as file:
        for number in range(rows):
            file.append(row(number))
    (folder / "meta.json").write_text(json.dumps(META))
    (folder / ASKED).write_text(SETTINGS.to_text())


@pytest.fixture
def exported(at: Callable[[str], Path], tmp_path: Path) -> Path:
    """A file with three rows; the present home is another, which is empty."""
    calibrate(at("here") / NAME)
    assert export_profile("made-up", tmp_path / "out.json") == 3
    at("there")
    return tmp_path / "out.json"


def test_a_calibration_whose_rows_are_gone_is_not_exported(
    at: Callable[[str], Path], tmp_path: Path
) -> None:
    calibrate(at("here") / NAME, rows=0)
    with pytest.raises(BadInput, match="has no rows"):
        export_profile("made-up", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_rows_facts_and_settings_arrive(exported: Path) -> None:
    folder = import_profile(exported)
    assert folder.name == NAME
    assert read_records(folder / ROWS) == [row(number) for number in range(3)]
    assert json.loads((folder / "meta.json").read_text()) == META
    assert CalibrationSettings.read(folder) == SETTINGS
    assert not (folder / "accuracy.json").exists()
    assert {path.name for path in folder.iterdir()} == {ROWS, LOCK, "meta.json", ASKED}


def test_a_file_of_an_older_version_has_no_settings(exported: Path) -> None:
    document = json.loads(exported.read_text())
    del document["asked"]
    exported.write_text(json.dumps(document))
    assert not (import_profile(exported) / ASKED).exists()


def test_the_file_is_one_line_and_keeps_letters(exported: Path) -> None:
    text = exported.read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert text.endswith("}\n")
    assert "größe" in text
    assert json.loads(text)["rows"][0]["schema"] == 1


@pytest.mark.parametrize("name", ["made-up", NAME, "Owner/Made-Up", "made-up/"])
def test_any_name_of_it_is_found(name: str, at: Callable[[str], Path], tmp_path: Path) -> None:
    calibrate(at("here") / NAME)
    assert export_profile(name, tmp_path / "out.json") == 3


def test_a_name_of_none_or_of_several_lists_what_there_is(
    at: Callable[[str], Path], tmp_path: Path
) -> None:
    place, out = at("here"), tmp_path / "out.json"
    with pytest.raises(BadInput, match="no calibration of 'made-up'") as error:
        export_profile("made-up", out)
    assert error.value.hint == "`kvpareto calibrate` makes one"
    calibrate(place / NAME)
    with pytest.raises(BadInput, match="no calibration of 'made'") as error:
        export_profile("made", out)
    assert error.value.hint == f"there are {NAME}"
    calibrate(place / "made-up-11111111")
    calibrate(place / "other-22222222")
    with pytest.raises(BadInput, match="made-up has several calibrations") as error:
        export_profile("made-up", out)
    assert error.value.hint == f"name one of {NAME}, made-up-11111111"
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "kvpareto plan"),
        ("schema", "1"),
        ("schema", None),
        ("name", None),
        ("name", "../made-up-00000000"),
        ("name", "made-up-11111111"),  # of another fingerprint
        ("meta", None),
        ("meta", []),
        ("rows", None),
        ("rows", {}),
        ("accuracy", []),
        ("asked", []),
    ],
    ids=str,
)
def test_what_is_no_export_is_refused(
    key: str, value: object, exported: Path, at: Callable[[str], Path]
) -> None:
    exported.write_text(json.dumps(json.loads(exported.read_text()) | {key: value}))
    with pytest.raises(BadInput, match="is not an exported calibration"):
        import_profile(exported)
    assert not at("there").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "was written by another version: its schema is 2, not 1"),
        ({"asked": {"runs": 3}}, "what was asked is incomplete"),
        ({"accuracy": {"schema": 1}}, "was written by another version: its schema is 1"),
        ({"rows": [stored(row(0, fingerprint="0" * 8 + "1" * 8))]}, "a row is of another model"),
        ({"meta": META | {"schema": 2}}, "schema of the facts"),
        ({"rows": [{"schema": 1}]}, "row 1 is not a calibration row"),
        ({"rows": [stored(row(0)), 5]}, "row 2 is not"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_do_not_belong_together_are_named(
    change: dict[str, Any], says: str, exported: Path, at: Callable[[str], Path]
) -> None:
    exported.write_text(json.dumps(json.loads(exported.read_text()) | change))
    with pytest.raises(BadInput, match=says):
        import_profile(exported)
    assert not at("there").exists()


def test_rows_that_are_here_are_not_written_over(exported: Path, at: Callable[[str], Path]) -> None:
    calibrate(at("there") / NAME, rows=1)
    with pytest.raises(BadInput, match="there is a calibration of this model already") as error:
        import_profile(exported)
    assert "move that folder away" in error.value.hint
    assert len(read_records(at("there") / NAME / ROWS)) == 1


def test_a_calibration_that_runs_is_not_written_over(
    exported: Path, at: Callable[[str], Path]
) -> None:
    folder = at("there") / NAME
    with ProfileLock(folder / LOCK), pytest.raises(BadInput, match="is being calibrated"):
        import_profile(exported)
    assert [path.name for path in folder.iterdir()] == [LOCK]


def test_an_import_that_died_before_its_rows_is_repeated(
    exported: Path, at: Callable[[str], Path]
) -> None:
    folder = at("there") / NAME
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text("{}")
    (folder / ROWS).write_text("")
    assert len(read_records(import_profile(exported) / ROWS)) == 3


def test_affine_maps_travel_beside_the_file(at: Callable[[str], Path], tmp_path: Path) -> None:
    folder, out = at("here") / NAME, tmp_path / "out.json"
    calibrate(folder)
    (folder / AFFINE).write_bytes(b"maps")
    export_profile("made-up", out)
    beside = tmp_path / "out.affine.safetensors"
    assert maps_of("made-up") == folder / AFFINE
    assert (maps_beside(out), beside.read_bytes()) == (beside, b"maps")
    at("there")
    assert not maps_left_behind(out)
    assert (import_profile(out) / AFFINE).read_bytes() == b"maps"
    at("elsewhere")
    beside.write_bytes(b"others")
    with pytest.raises(BadInput, match="holds other affine maps") as error:
        import_profile(out)
    assert "both files of one export" in error.value.hint
    beside.unlink()
    assert maps_left_behind(out)
    assert not (import_profile(out) / AFFINE).exists()


def test_maps_that_are_no_file_are_named_before_anything_is_written(
    at: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, out = at("here") / NAME, tmp_path / "out.json"
    calibrate(folder)
    (folder / AFFINE).mkdir()
    with pytest.raises(BadInput, match="is no file of maps"):
        export_profile("made-up", out)
    assert not out.exists()


def test_a_calibration_without_maps_says_nothing_of_them(exported: Path) -> None:
    assert "affine" not in json.loads(exported.read_text())
    assert not maps_left_behind(exported)
    import_profile(exported)
    assert maps_of("made-up") is None


@pytest.mark.parametrize("name", ["made-up", NAME, "Owner/Made-Up", "made-up/"])
def test_show_takes_every_name_that_export_takes(name: str, at: Callable[[str], Path]) -> None:
    calibrate(at("here") / NAME)
    document = show_document(name)
    assert (document["kind"], document["name"]) == ("calibration", NAME)


def test_show_asks_back_where_export_does(at: Callable[[str], Path]) -> None:
    place = at("here")
    calibrate(place / NAME)
    calibrate(place / "made-up-11111111")
    with pytest.raises(BadInput, match="made-up has several calibrations"):
        show_document("made-up")
    assert show_document("made-up-11111111")["name"] == "made-up-11111111"
