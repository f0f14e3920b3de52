"""Ctrl-C at any moment: one line, exit code 130, never a traceback.

Python turns Ctrl-C into an exception at whatever line it happens to be, in an import, a callback or
the very line that ends the program, where nobody catches it. So the process ends at once, but for
commands that have something to close: between `raise_it(True)` and `raise_it(False)` Ctrl-C is
KeyboardInterrupt as ever, so that a calibration closes its files. Inside an import it is not even
then: a library may swallow it there. A second Ctrl-C ends the process.

Where the exception is raised in a finalizer Python drops it: Ctrl-C then comes once more. When the
interpreter is taken apart there is nothing left to interrupt, and it is ignored.

While an answer or a file is written Ctrl-C waits (`waits`): nothing is cut off.
This module imports next to nothing: it is what runs first.
"""

from __future__ import annotations

import _signal as signal  # what signal is made of, without enum: milliseconds in which we are deaf
import _thread
import atexit
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from sys import UnraisableHookArgs
    from types import FrameType, TracebackType

CODE = 130
_JSON = b'{"schema": 1, "fits": false, "error": "interrupted", "hint": "", "exit_code": 130}\n'


class _Handler:
    def __init__(self) -> None:
        self.raises = False
        self.answered = False
        self.asked = False
        self._waiting = 0
        self._came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            self._came = True
            return
        self.act(frame)

    def act(self, frame: FrameType | None) -> None:
        """End the process, or raise KeyboardInterrupt where somebody is to close something."""
        if self.asked or not self.raises or _importing(frame):
            end(self.answered)
        self.asked = True
        raise KeyboardInterrupt

    def __enter__(self) -> None:
        self._waiting += 1
        _block(True)  # a signal cuts a write to a full pipe short, whoever handles it

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self._waiting == 1:
            _block(False)
        self._waiting -= 1
        if self._came and not self._waiting and kind is None:
            self._came = False
            self.act(sys._getframe())


_handler = _Handler()


def install() -> None:
    """Take Ctrl-C over for the rest of the process. Where it is ignored (nohup) it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handler)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the first to come is last
        sys.unraisablehook = _unraisable


def _unraisable(dropped: UnraisableHookArgs) -> None:
    """What Python calls for an exception that nobody can catch."""
    if isinstance(dropped.exc_value, KeyboardInterrupt) and _handler.asked:
        _handler.asked = False
        _thread.start_new_thread(_press, ())
    else:
        sys.__unraisablehook__(dropped)


def _press() -> None:
    """Ctrl-C, when the finalizer is over."""
    time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def waits() -> _Handler:
    """The context in which Ctrl-C waits; it comes when the context is left."""
    return _handler


def raise_it(wanted: bool) -> None:
    """Whether Ctrl-C raises KeyboardInterrupt from now on, or ends the process."""
    _handler.raises = wanted


def answered(is_whole: bool) -> None:
    """Whether stdout has its JSON document: then ending the process adds none."""
    _handler.answered = is_whole


def _block(wanted: bool) -> None:
    """Keep SIGINT from this thread, or let it come; Windows has no such masks."""
    if hasattr(signal, "pthread_sigmask"):
        how = signal.SIG_BLOCK if wanted else signal.SIG_UNBLOCK
        signal.pthread_sigmask(how, {signal.SIGINT})


def _importing(frame: FrameType | None) -> bool:
    """Whether the import system is at work below `frame`; the command line's own import counts."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line wants one JSON document, `--json=WORD` too, which is a mistake."""
    return any(word.split("=")[0] == "--json" for word in arguments)


def end(is_answered: bool) -> None:
    """Say so and leave, without what is at work having a say."""
    try:
        if asks_for_json(sys.argv) and not is_answered:
            os.write(1, _JSON)
        os.write(2, b"interrupted\n")
    finally:  # whoever reads may be gone
        os._exit(CODE)
