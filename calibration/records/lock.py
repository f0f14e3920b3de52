"""One writer a profile: a lock that dies with its process, and names its holder.

The operating system drops the lock when the process ends, however it ends, so nothing stale can
keep a calibration from being resumed. What is written in the lock file is only for the message.
"""

import json
import os
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ...planner.errors import BadInput
from ...planner.whole_file import writing


class ProfileLock:
    """A context manager that holds the lock file `path`. Raises BadInput naming the holder where
    another process holds it, or where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        with writing(self.path, "make room, or set KVPARETO_HOME to a folder you may write"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # a+: what the holder wrote must outlive a failed attempt to become it
            file = self.path.open("a+", encoding="utf-8")
        try:
            _acquire(file)
        except OSError:
            file.close()
            raise BadInput(
                f"{self.path.parent.name} is being calibrated by {_holder(self.path)}",
                "wait for it to end, or stop it; what it measured is kept",
            ) from None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
        try:
            with writing(self.path):
                file.seek(0)
                file.truncate()
                file.write(json.dumps(holder))
                file.flush()
        except BadInput:
            with suppress(OSError):  # what is not written is tried again
                file.close()
            raise
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()  # closing drops the lock
            self._file = None


if sys.platform == "win32":
    import msvcrt

    _FAR = 2**20  # Windows locks bytes against reading too: one beyond the text

    def _acquire(file: IO[str]) -> None:
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _acquire(file: IO[str]) -> None:
        """Raises OSError where another process holds the lock."""
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"process {said['process']} on {said['host']}, since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
