"""A torn last line: what a process leaves that ends while it writes a row. It is set aside."""

import os
from pathlib import Path

from ...planner.errors import BadInput
from ...planner.reading import read_regular
from ...planner.whole_file import writing


def whole_lines(data: bytes) -> int:
    """Bytes of `data` that whole lines take. A line is torn if it has no end, or if it is the
    last and is not JSON: a crash of the machine can leave a line's length without its bytes."""
    end = data.rfind(b"\n") + 1
    last = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    line = data[last:end].strip()
    return end if line.startswith(b"{") and line.endswith(b"}") and b"\0" not in line else last


def read_rows(path: Path) -> bytes:
    """What a file of rows holds; nothing where there is none. Raises BadInput."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror or error}",
            "make it readable, or move its folder away and measure again",
        ) from error


def set_torn_line_aside(path: Path) -> bool:
    """Whether there was one; it is in a `.torn` file beside then. Raises BadInput."""
    data = read_rows(path)
    end = whole_lines(data)
    if end == len(data):
        return False
    torn = path.with_name(path.name + ".torn")
    with writing(torn), torn.open("ab") as aside:
        aside.write(data[end:].rstrip(b"\n") + b"\n")
        aside.flush()
        os.fsync(aside.fileno())
    with writing(path), path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    return True
