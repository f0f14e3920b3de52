"""Files that somebody else named, opened so that no reading waits for data.

A regular file of /proc or of a trace (/proc/kmsg, trace_pipe) has data when the kernel has some:
reading it as any other would wait for ever.
"""

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO, TextIO

STDIN = "-"
"""What stands for stdin where a command reads a file."""


def unblocked(path: str, flags: int) -> int:
    """An opener for `open`: where there is no data a read gives None, or raises OSError."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_regular(path: Path) -> bytes:
    """All bytes of a file. Raises OSError for a pipe or a device, which may have no end."""
    with open(path, "rb", opener=unblocked) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(None, "it is no regular file")
        return file.read()


def read_at_most(file: BinaryIO, count: int) -> bytes:
    """The next bytes of `file`, at most `count`. Raises OSError where it has none to give yet."""
    data: bytes | None = file.read(count)
    if data is None:
        raise OSError(None, "it is no file of data")
    return data


def read_stdin(limit: int) -> bytes:
    """The bytes of stdin, at most `limit` + 1. Raises OSError where it is closed."""
    return _stdin().buffer.read(limit + 1)


def read_stdin_text(limit: int) -> str:
    """The text of stdin, at most `limit` + 1 characters: it may have no end. Raises OSError where
    it is closed, UnicodeDecodeError for what is no text."""
    return _stdin().read(limit + 1)


def _stdin() -> TextIO:
    if sys.stdin is None:  # closed by who started us
        raise OSError(None, "stdin is closed")
    return sys.stdin
