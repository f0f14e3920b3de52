"""A calibration as one JSON file: from the machine with the GPU to the one that plans.

Affine maps, megabytes of numbers, go beside it, in a file of their own whose hash it holds. The
JSON file holds the rows, what the calibration was asked for, the coefficients and the facts of the
profile. What is imported is checked row by row, and the coefficients are tried before anything is
written; the rows come last, so that an import that died can be repeated. Needs numpy alone.
"""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...planner.accuracy.calibration_files.check import check_meta, check_payload
from ...planner.accuracy.calibration_files.values import DamagedCalibration, OtherVersion
from ...planner.accuracy.calibrations import ACCURACY, AFFINE, FOLDER, META, folders, named
from ...planner.errors import BadInput
from ...planner.models.finite_json import read_json
from ...planner.reading import STDIN
from ...planner.user_data import home
from ...planner.whole_file import check_output, check_target, replace, write_whole
from ..design.options import ASKED, CalibrationSettings
from .lock import ProfileLock
from .profile_files import replace_file, to_text
from .record_file import LOCK, ROWS, Record, parse_record, read_records

KIND = "kvpareto calibration"
SCHEMA = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,200}-[0-9a-f]{8}")


def maps_beside(file: Path) -> Path:
    """Where the affine maps of an exported calibration lie."""
    return file.with_name(f"{file.stem}.{AFFINE}")


def maps_of(name: str) -> Path | None:
    """The affine maps of the calibration called `name`; None where it has none. Raises BadInput
    as `export_profile` does."""
    maps = _find(name) / AFFINE
    return maps if maps.exists() else None


def maps_left_behind(file: Path) -> bool:
    """Whether an exported calibration had affine maps that are not beside it."""
    return _read(file).get("affine") is not None and not maps_beside(file).is_file()


def export_document(name: str, output: Path) -> dict[str, Any]:
    """What `kvpareto profiles export --json` prints. Raises BadInput as `export_profile` does."""
    rows = export_profile(name, output)
    maps = None if maps_of(name) is None else maps_beside(output)
    return {
        "schema": 1,
        "name": name,
        "rows": rows,
        "file": str(output.absolute()),
        "affine": None if maps is None else str(maps.absolute()),
    }


def import_document(file: Path) -> dict[str, Any]:
    """What `kvpareto profiles import --json` prints. Raises BadInput as `import_profile` does."""
    folder = import_profile(file)
    left = maps_left_behind(file)
    return {"schema": 1, "name": folder.name, "folder": str(folder), "maps_missing": left}


def export_profile(name: str, output: Path) -> int:
    """Write the calibration called `name` (a folder's name, or a model's) to `output`, and what
    affine maps it has to `maps_beside(output)`; its number of rows. Raises BadInput where there is
    none, or more than one, or no writing."""
    check_output(output)
    folder = _find(name)
    rows = read_records(folder / ROWS)
    if not rows:
        raise BadInput(
            f"the calibration in {folder} has no rows",
            "measure the model again: kvpareto calibrate --model MODEL",
        )
    document = {
        "kind": KIND,
        "schema": SCHEMA,
        "name": folder.name,
        "meta": read_json(folder / META),
        "asked": read_json(folder / ASKED),
        "accuracy": read_json(folder / ACCURACY),
        "rows": [json.loads(row.model_dump_json(by_alias=True)) for row in rows],
    }
    maps = folder / AFFINE
    if maps.exists():
        if not maps.is_file():
            raise BadInput(f"{maps} is no file of maps", "move it away to export without maps")
        held = maps.read_bytes()
        document["affine"] = sha256(held).hexdigest()
        replace(check_target(maps_beside(output)), held)
    write_whole(output, json.dumps(document, ensure_ascii=False) + "\n")
    return len(rows)


def import_profile(file: Path) -> Path:
    """Take over an exported calibration; its folder. Raises BadInput for a file that is not one,
    or where this machine has rows of that model already."""
    document = _read(file)
    folder = home() / FOLDER / document["name"]
    rows = [
        parse_record(json.dumps(row), f"{file}, row {i}")
        for i, row in enumerate(document["rows"], 1)
    ]
    accuracy, asked = document["accuracy"], document.get("asked")
    _check(document, rows, file)
    maps = _maps(document, file)
    with ProfileLock(folder / LOCK):
        if read_records(folder / ROWS):
            raise BadInput(
                f"there is a calibration of this model already: {folder}",
                "move that folder away, then import again",
            )
        if maps is not None:
            replace(folder / AFFINE, maps)
        if accuracy is not None:
            replace_file(folder / ACCURACY, to_text(accuracy))
        if asked is not None:
            replace_file(folder / ASKED, json.dumps(asked, indent=1) + "\n")
        replace_file(folder / META, json.dumps(document["meta"], indent=1) + "\n")
        lines = (row.model_dump_json(by_alias=True) + "\n" for row in rows)
        replace_file(folder / ROWS, "".join(lines))
    return folder


def _maps(document: dict[str, Any], file: Path) -> bytes | None:
    """The affine maps that belong to an exported calibration. Raises BadInput where they are
    others; None where it has none, or they were left behind."""
    beside = maps_beside(file)
    if document.get("affine") is None or not beside.is_file():
        return None
    held = beside.read_bytes()
    if sha256(held).hexdigest() != document["affine"]:
        raise BadInput(
            f"{beside} holds other affine maps than {file} was exported with",
            "bring both files of one export, or move that one away to import without maps",
        )
    return held


def _find(name: str) -> Path:
    matching = named(name)
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(folder.name for folder in matching or folders())
    if matching:
        raise BadInput(f"{name} has several calibrations", f"name one of {known}")
    raise BadInput(
        f"no calibration of {name!r} on this machine",
        f"there are {known}" if known else "`kvpareto calibrate` makes one",
    )


def _read(file: Path) -> dict[str, Any]:
    if str(file) == STDIN:
        raise BadInput(
            "a calibration is imported from a file: its affine maps lie beside it",
            "save stdin to a file: cat > calibration.json",
        )
    if not file.is_file():
        raise BadInput(
            f"cannot read {file}: {'it is no file' if file.exists() else 'there is none'}",
            "give a file that `kvpareto profiles export` wrote",
        )
    document = read_json(file)
    exported = document is not None and document.get("kind") == KIND
    schema = document.get("schema") if document is not None else None
    if exported and isinstance(schema, int) and schema != SCHEMA:
        raise BadInput(
            f"{file} was written by another version: its schema is {schema}, not {SCHEMA}",
            "export it with the version that is here",
        )
    valid = (
        document is not None
        and exported
        and schema == SCHEMA
        and isinstance(document.get("name"), str)
        and _NAME.fullmatch(document["name"]) is not None
        and isinstance(document.get("meta"), dict)
        and document["name"].endswith("-" + str(document["meta"].get("fingerprint"))[:8])
        and isinstance(document.get("rows"), list)
        and isinstance(document.get("accuracy"), dict | None)
        and isinstance(document.get("asked"), dict | None)
        and isinstance(document.get("affine"), str | None)
    )
    if document is None or not valid:
        raise BadInput(
            f"{file} is not an exported calibration",
            "give a file that `kvpareto profiles export` wrote",
        )
    return document


def _check(document: dict[str, Any], rows: list[Record], file: Path) -> None:
    """Raise BadInput for parts that no calibration of one model would have, or that do not belong
    to each other."""
    accuracy, asked, meta = document["accuracy"], document.get("asked"), document["meta"]
    try:
        check_meta(meta)
        if accuracy is not None:
            check_payload(accuracy)
            if accuracy.get("fingerprint") != meta["fingerprint"]:
                raise DamagedCalibration("the coefficients are of another model")
        if asked is not None and CalibrationSettings.of(asked) is None:
            raise DamagedCalibration("what was asked is incomplete")
        if any(row.fingerprint != meta["fingerprint"] for row in rows):
            raise DamagedCalibration("a row is of another model")
    except DamagedCalibration as error:
        raise BadInput(
            f"the calibration in {file} {error.words}",
            "where it was made: `kvpareto calibrate -m MODEL --resume` by this version, then "
            "export it again"
            if isinstance(error, OtherVersion)
            else "export the calibration again",
        ) from None
