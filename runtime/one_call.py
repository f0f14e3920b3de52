"""One call of a session at a time: a second thread is refused, and so is a stream that is over.

A session's cache holds the tokens of one call. A call leaves an iterator to be read; the next call
takes the cache, and reading the old iterator then is an error instead of another call's tokens.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..planner.errors import BadInput

T = TypeVar("T")


class OneCall:
    """Lets one call of a session run at a time, until the session is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while a call runs
        self._number = 0  # whose tokens the cache holds
        self._closed = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The session for one call. Raises BadInput while another runs, and once it is closed."""
        if not self._lock.acquire(blocking=False):
            raise BadInput(
                "this session is running a call already, in another thread",
                "load a session for each thread; sessions of one model share its weights",
            )
        try:
            self.check_open()
            yield
        finally:
            self._lock.release()

    def check_open(self) -> None:
        """Raise BadInput once the session is closed."""
        if self._closed:
            raise BadInput("this session is closed", "load the model again")

    def begin(self) -> None:
        """A call takes the cache."""
        self._number += 1

    def readable(self, items: Iterator[T]) -> Iterator[T]:
        """What the present call leaves to be read, as long as no other has taken the cache."""
        return self._read(items, self._number)

    def _read(self, items: Iterator[T], call: int) -> Iterator[T]:
        while True:
            with self.alone():
                if call != self._number:
                    raise BadInput(
                        "this stream is over: its session has begun another call since",
                        "read a stream to its end first, or load a second session",
                    )
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def closing(self) -> Iterator[bool]:
        """Close for good, after a call that another thread runs; whether it was open until now."""
        with self._lock:
            was_open, self._closed = not self._closed, True
            yield was_open
