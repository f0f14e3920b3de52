"""Files written whole or not at all.

A file that a person named is replaced by a new one beside it, which is on the disk before it takes
the name: a full disk, a kill or a second process leaves the old file or a new one, never a part,
and no litter. Only regular files are written: a device, a pipe or a folder is refused, and a link
stays a link (its target is what is written).
"""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..interrupt import waits
from .errors import BadInput

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
MAKE_ROOM = "make room on the disk; nothing is wrong with what was asked"
_NAME = "give the name of a file in it"
_HINT = "choose a file you may write"
_MOST_BYTES = 2**28
_OURS = ("recommended", "max_context", "verified", "rows")
"""Fields of which every document that is written to a file has one."""
_NOT_FILES = ("/dev", "/proc", "/sys")


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path`. Raises BadInput in one line where that cannot be done."""
    target = check_target(path)
    try:
        data = text.encode("utf-8", "surrogateescape")
        with waits():  # Ctrl-C would leave litter
            replace(target, data)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error


@contextmanager
def writing(path: Path, hint: str = "") -> Iterator[None]:
    """Around whatever writes to `path`: what the system refuses is raised as BadInput, which names
    the path, also where the system does not (a full disk says nothing of the file)."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error, hint) from error
    except Exception as error:  # safetensors' own, written in another language
        if "No space left" not in str(error):
            raise
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise _refused(path, full, hint) from error


def check_target(path: Path) -> Path:
    """The regular file, there or not, that writing to `path` would write. Raises BadInput.

    Asked before long work begins, so that its result has a place.
    """
    if str(path) == "-":
        raise BadInput(
            "- is no file: --save and --output write files", "--json prints the document on stdout"
        )
    try:
        target = Path(os.path.realpath(path.expanduser()))
        _refuse_special(path, target)
        if not target.parent.is_dir():
            raise BadInput(f"cannot write {path}: there is no folder {target.parent}", _HINT)
        known = target if target.exists() else target.parent
        if not os.access(known, os.W_OK) or not os.access(target.parent, os.W_OK):
            raise BadInput(f"cannot write {path}: permission denied", _HINT)
    except (OSError, ValueError, RuntimeError) as error:
        raise _refused(path, error) from error
    return target


def check_output(path: Path, *reads: Path | None) -> Path:
    """check_target for the file that a person wants an answer in: what is there is replaced only
    where it is empty or of this program, and is none of the files that the command `reads`.

    Raises BadInput.
    """
    target = check_target(path)
    if any(one is not None and _is_same(target, one) for one in reads):
        raise BadInput(f"cannot write {path}: this command reads it", "name another file")
    try:
        if target.exists() and not _is_ours(target):
            raise BadInput(
                f"cannot write {path}: it is there, and kvpareto did not write it",
                "name another file, or move that one away",
            )
    except OSError as error:
        raise _refused(path, error) from error
    return target


def _is_same(target: Path, other: Path) -> bool:
    with suppress(OSError, ValueError, RuntimeError):
        return target.samefile(other.expanduser())
    return False


def _is_ours(file: Path) -> bool:
    """Whether `file` is empty, a JSON document of this program or its page of pictures."""
    with file.open("rb") as opened:
        start = opened.read(4096)
        if not start.strip() and len(start) < 4096:
            return True
        if start.startswith(b"<!doctype html>"):
            return b"kvpareto" in start
        if not start.lstrip().startswith(b"{") or file.stat().st_size > _MOST_BYTES:
            return False
        try:
            document = json.loads(start + opened.read())
        except (ValueError, RecursionError):
            return False
    is_document = isinstance(document, dict) and document.get("schema") == 1
    return is_document and any(name in document for name in _OURS)


def _refuse_special(path: Path, target: Path) -> None:
    """Raise BadInput for what is there and is no regular file."""
    named = Path(os.path.abspath(path))
    if any(map(named.is_relative_to, _NOT_FILES)) and not named.is_relative_to("/dev/shm"):
        raise BadInput(
            f"cannot write {path}: it is no regular file",
            "--json prints the document on stdout; or choose a file",
        )
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode) and str(path) == ".":  # what an empty name becomes too
        raise BadInput("no file is named: '' and . are no names (it is a folder)", _NAME)
    if stat.S_ISDIR(mode):
        raise BadInput(f"cannot write {path}: it is a folder", _NAME)
    if stat.S_ISLNK(mode):
        raise BadInput(f"cannot write {path}: its links go round in a circle", _HINT)
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((name for test, name in kinds if test(mode)), "a device")
        raise BadInput(
            f"cannot write {path}: it is {kind}", "a plan is written to regular files only"
        )


def replace(target: Path, data: bytes) -> None:
    """A new file of a name of its own, on the disk, then in the place of `target`. Raises OSError,
    and leaves what was there."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _mode(target))
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    sync_folder(target.parent)


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, else those any new file gets."""
    with suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def sync_folder(folder: Path) -> None:
    """The new name is on the disk when its folder is; some file systems cannot say so."""
    if os.name == "posix":
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _refused(path: Path, error: BaseException, hint: str = "") -> BadInput:
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        reason = (error.strerror or "no room").strip()
        return BadInput(f"cannot write {path}: the disk is full ({reason})", hint or MAKE_ROOM)
    reason = getattr(error, "strerror", None) or str(error)
    return BadInput(f"cannot write {path}: {reason}", hint or _HINT)
