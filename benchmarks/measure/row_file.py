"""A file of measured rows: JSON lines, appended with fsync; what is there is not made again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Key = tuple[Any, ...]


def by_key(row: dict[str, Any]) -> Key:
    return tuple(row["key"])


class RowFile:
    """The file of rows: what it has, by what `key_of` says of each, and appending to it."""

    def __init__(self, path: Path, key_of: Callable[[dict[str, Any]], Key] = by_key) -> None:
        self.path, self.key_of = path, key_of
        self.rows = read(path)
        self.done = set(map(key_of, self.rows))

    def append(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        self.done.add(self.key_of(row))


def read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def held(row: dict[str, Any]) -> int | None:
    """Bytes that the device held at its worst, of a row with an `execution`."""
    execution = row.get("execution", {})
    measured: int | None = execution.get("device_used", execution.get("counted"))
    return measured
