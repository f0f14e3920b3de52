"""Ctrl-C at any moment: one line, exit code 130, never a traceback.

Python turns Ctrl-C into an exception at whatever line it happens to be. Inside an import that
line may be in a library that swallows it, or wraps it into an ImportError; so there the process
ends at once, nothing having been begun that an import could lose. Elsewhere KeyboardInterrupt is
raised as ever, so that a calibration closes its files; a second Ctrl-C ends that too.

This module imports next to nothing: it is what runs first.
"""

import os
import signal
import sys
from types import FrameType

CODE = 130
_JSON = b'{"schema": 1, "fits": false, "error": "interrupted", "hint": "", "exit_code": 130}\n'


def install() -> None:
    """Take Ctrl-C over for the rest of the process. Where it is ignored (nohup) it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _Handler())


class _Handler:
    def __init__(self) -> None:
        self._asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._asked or _importing(frame):
            _end()
        self._asked = True
        raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether the import system is at work below `frame`; cli.py's own import counts."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end() -> None:
    """Say so and leave, without what is at work having a say."""
    if "--json" in sys.argv:
        os.write(1, _JSON)
    os.write(2, b"interrupted\n")
    os._exit(CODE)
