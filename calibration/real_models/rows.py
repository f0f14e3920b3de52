"""The campaign's files: a line a point, and before them the line that says where they come from.

A point is {"model", "kind", "config", "context", …} with kind "divergence" (forced.row_of), or
"tasks" or "choices" ({name: {"score", "parts", "items"}}, a hexadecimal digit an item); what failed
has an "error" in the place of its values. A line with an "environment" holds for those behind it,
and names the model's source file with its SHA-256.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, str, int]
DIVERGENCE, TASKS, CHOICES = "divergence", "tasks", "choices"


def key_of(row: Row) -> Key:
    return row["model"], row["kind"], row["config"], row["context"]


def read_rows(paths: Iterable[Path]) -> list[tuple[Row, Row]]:
    """(header, point) of every line that holds a value, of each point the first. A torn last
    line, which a killed worker leaves, is passed over."""
    by_key: dict[Key, tuple[Row, Row]] = {}
    for path in sorted(paths):
        header: Row = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if "environment" in row:
                header = row
            elif "error" not in row:
                by_key.setdefault(key_of(row), (header, row))
    return list(by_key.values())


def write_rows(path: Path, points: Sequence[tuple[Row, Row]]) -> None:
    """One file of many: each header once, its points behind it in a fixed order."""
    groups: dict[str, list[Row]] = {}
    for header, row in points:
        groups.setdefault(json.dumps(header, sort_keys=True), []).append(row)
    lines = []
    for header_text, rows in sorted(groups.items()):
        lines.append(header_text)
        rows.sort(key=lambda row: (row["kind"], row["context"], row["config"]))
        lines += [json.dumps(row, separators=(",", ":")) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Writer:
    """Appends to one worker's file, each line on disk before the next is measured."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: Row | None = None
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            self._append("")  # ends a torn line

    def write(self, header: Row, row: Row) -> None:
        if header != self._header:
            self._append(json.dumps(header))
            self._header = header
        self._append(json.dumps(row, separators=(",", ":")))

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
