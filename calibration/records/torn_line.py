"""A torn last line: what a process leaves that ends while it writes a row. It is set aside."""

import os
from pathlib import Path


def whole_lines(data: bytes) -> int:
    """Bytes of `data` that whole lines take. A line is torn if it has no end, or if it is the
    last and is not JSON: a crash of the machine can leave a line's length without its bytes."""
    end = data.rfind(b"\n") + 1
    last = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    line = data[last:end].strip()
    return end if line.startswith(b"{") and line.endswith(b"}") and b"\0" not in line else last


def set_torn_line_aside(path: Path) -> bool:
    if not path.exists():
        return False
    data = path.read_bytes()
    end = whole_lines(data)
    if end == len(data):
        return False
    with path.with_name(path.name + ".torn").open("ab") as aside:
        aside.write(data[end:].rstrip(b"\n") + b"\n")
        aside.flush()
        os.fsync(aside.fileno())
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    return True
