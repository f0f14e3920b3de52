"""Every way a command can end without its answer, as one line, one hint and one JSON document.

What is raised anywhere below the command line becomes a Failure here: the expected failures with
their own words; a library that is missing or broken with the command that installs it; a
refusal of the system; and, last, a fault of this program, which is called one.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..planner.errors import KVParetoError, one_line
from ..planner.libraries import NO_PLACE, import_failure
from ..planner.whole_file import DISK_FULL, MAKE_ROOM

SCHEMA = 1
INTERRUPTED = 130
TRACEBACK = "KVPARETO_TRACEBACK"
"""Environment variable with which a fault of the program is shown as Python shows it."""

_CTRL_C = "interrupted"
_NO_PLACE = "make room on the disk, or set TMPDIR to a folder that you may write"
_FULL = "the disk is full"
_HINTS = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EACCES: "choose a place you may read and write",
    errno.EPERM: "choose a place you may read and write",
    errno.EROFS: "choose a place you may write",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@dataclass(frozen=True)
class Failure:
    """What is said on stderr, the exit code, and the same as fields."""

    message: str
    hint: str
    code: int
    details: Mapping[str, object] = field(default_factory=dict)
    fault: bool = False
    """Whether this program is to blame."""

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "schema": SCHEMA,
            "fits": False,
            "error": one_line(self.message),
            "hint": one_line(self.hint),
            "exit_code": self.code,
            **self.details,
        }

    def lines(self) -> list[str]:
        """What a person reads, one or two lines."""
        if self.message == _CTRL_C:  # not a word more than the person knows
            return [self.message]
        hint = [f"hint: {one_line(self.hint)}"] if self.hint else []
        return [f"error: {one_line(self.message)}", *hint]


def failure_of(error: BaseException) -> Failure:
    """The Failure that `error` is."""
    if isinstance(error, KVParetoError):
        return Failure(error.message, error.hint, error.exit_code, error.details)
    if isinstance(error, KeyboardInterrupt):
        return Failure(_CTRL_C, "", INTERRUPTED)
    unusable = import_failure(error)
    if unusable is not None:
        return failure_of(unusable)
    if isinstance(error, MemoryError):
        return Failure("this machine's memory ran out", "ask for less at once", 2)
    if isinstance(error, OSError):
        if NO_PLACE in str(error):
            return Failure("no folder for temporary files can be written", _NO_PLACE, 2)
        hint = _HINTS.get(error.errno or 0, "the system refused a file; is it there, is it yours?")
        said = _FULL if error.errno in DISK_FULL else error.strerror or str(error)
        return Failure(f"{said}: {error.filename}" if error.filename else said, hint, 2)
    if isinstance(error, ValueError) and "null byte" in str(
        error
    ):  # what the system says of a path
        return Failure("a path holds a null character", "type the path again", 2)
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return Failure("this user has no home folder", "set HOME to a folder that you may write", 2)
    return Failure(
        f"a fault of kvpareto itself: {type(error).__name__}: {error}",
        f"{TRACEBACK}=1 shows where; please report it with the command",
        2,
        fault=True,
    )
