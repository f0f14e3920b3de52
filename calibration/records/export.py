"""A calibration as one JSON file: from the machine with the GPU to the one that plans.

The file holds the rows, the coefficients and the facts of the profile. What is imported is
checked row by row, and the coefficients are tried before anything is written.
"""

import json
import re
from pathlib import Path
from typing import Any

from ...planner.accuracy.calibrations import ACCURACY, FOLDER, META, folders, home, read_json
from ...planner.accuracy.predictor import Predictor
from ...planner.errors import BadInput
from ...planner.whole_file import check_target, write_whole
from ..coefficients_text import to_text
from .lock import ProfileLock
from .record_file import LOCK, ROWS, parse_record, read_records

KIND = "kvpareto calibration"
SCHEMA = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,200}-[0-9a-f]{8}")


def export_profile(name: str, output: Path) -> int:
    """Write the calibration called `name` (a folder's name, or a model's) to `output`; its number
    of rows. Raises BadInput where there is none, or more than one, or no writing."""
    check_target(output)
    folder = _find(name)
    rows = read_records(folder / ROWS)
    document = {
        "kind": KIND,
        "schema": SCHEMA,
        "name": folder.name,
        "meta": read_json(folder / META),
        "accuracy": read_json(folder / ACCURACY),
        "rows": [json.loads(row.model_dump_json(by_alias=True)) for row in rows],
    }
    write_whole(output, json.dumps(document, ensure_ascii=False) + "\n")
    return len(rows)


def import_profile(file: Path) -> Path:
    """Take over an exported calibration; its folder. Raises BadInput for a file that is not one,
    or where this machine has rows of that model already."""
    document = _read(file)
    folder = home() / FOLDER / document["name"]
    rows = "".join(
        parse_record(json.dumps(row), f"{file}, row {i}").model_dump_json(by_alias=True) + "\n"
        for i, row in enumerate(document["rows"], 1)
    )
    accuracy = document["accuracy"]
    if accuracy is not None:
        _try(accuracy, file)
    with ProfileLock(folder / LOCK):
        if read_records(folder / ROWS):
            raise BadInput(
                f"there is a calibration of this model already: {folder}",
                "move that folder away, then import again",
            )
        write_whole(folder / ROWS, rows)
        if accuracy is not None:
            write_whole(folder / ACCURACY, to_text(accuracy))
        write_whole(folder / META, json.dumps(document["meta"], indent=1) + "\n")
    return folder


def _find(name: str) -> Path:
    wanted = name.rstrip("/").split("/")[-1].lower()
    found = [f for f in folders() if wanted in (f.name, f.name.rsplit("-", 1)[0])]
    if len(found) == 1:
        return found[0]
    known = ", ".join(folder.name for folder in found or folders())
    if found:
        raise BadInput(f"{name} has several calibrations", f"name one of {known}")
    raise BadInput(
        f"no calibration of {name!r} on this machine",
        f"there are {known}" if known else "`kvpareto calibrate` makes one",
    )


def _read(file: Path) -> dict[str, Any]:
    document = read_json(file)
    valid = (
        document is not None
        and document.get("kind") == KIND
        and document.get("schema") == SCHEMA
        and isinstance(document.get("name"), str)
        and _NAME.fullmatch(document["name"]) is not None
        and isinstance(document.get("meta"), dict)
        and document["name"].endswith("-" + str(document["meta"].get("fingerprint"))[:8])
        and isinstance(document.get("rows"), list)
        and isinstance(document.get("accuracy"), dict | None)
    )
    if document is None or not valid:
        raise BadInput(
            f"{file} is not an exported calibration",
            "give a file that `kvpareto profiles export` wrote",
        )
    return document


def _try(payload: dict[str, Any], file: Path) -> None:
    """Evaluate coefficients as a plan will. Raises BadInput where that fails."""
    from ...planner.accuracy import predict as accuracy
    from ...planner.formats.configuration import Configuration
    from ...planner.load_model import load_model

    try:
        predictor = Predictor(payload)
        model = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
        kept = accuracy.predict(model, Configuration(k_bits=4, v_bits=4), 4096, predictor)
        own = predictor.payload["models"][predictor.payload["own"]]
        sizes = len(own["mean"]), len(own["sd"]), len(own["shape"])
        sound = 0 <= kept.low <= kept.retention <= kept.high <= 1 and sizes == (4, 4, 3)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        sound = False
    if not sound:
        raise BadInput(f"the coefficients in {file} are damaged", "export the calibration again")
