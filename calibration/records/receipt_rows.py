"""Receipts of engines that are started, not imported, as rows of this machine's home."""

import json
import os
from datetime import UTC, datetime
from typing import Any

from ...planner.reading import unblocked
from ...planner.user_data import home
from ...planner.whole_file import writing


def append_receipt(engine: str, document: dict[str, Any]) -> None:
    """Append a receipt to `<home>/<engine>/runs.jsonl`; it is on the disk when this returns. The
    document then says that one row was written. Raises BadInput."""
    path = home() / engine / "runs.jsonl"
    row = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **document}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", opener=unblocked) as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    document["rows_written"] = 1
