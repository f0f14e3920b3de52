"""What the scripts that gather evidence on a GPU share: a file of rows, and its options.

Rows are JSON lines, appended with fsync as they are measured; a file that is there is gone on with.
"""

import argparse
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


def with_summary(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--summary", action="store_true", help="of the rows that are there")
    return parser


def options(about: str) -> argparse.ArgumentParser:
    """A parser with what all of them take."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?", help="rows are appended to this file")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this long")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gpu", default="H200", help="what is planned for")
    parser.add_argument("--commit", help="what is run, where git cannot say")
    parser.add_argument("--plan-only", action="store_true", help="print what would be run")
    return parser
