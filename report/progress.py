"""The progress of long work, on stderr; stdout is for data.

A terminal shows one line that is rewritten: a bar with the remaining time where the amount of work
is known, else a spinner. Elsewhere every step is a line of its own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from ..planner.errors import printable
from .marks import without_escapes

Say = Callable[[str], None]


class Remaining(ProgressColumn):
    """The time that is left: by what was expected of a unit until one is done, then by the pace so
    far, and never more than the limit that was set (`Progress.expect`)."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left, each, end = task.time_remaining, task.fields.get("each"), task.fields.get("end")
        if each is not None and task.total is not None and (left is None or task.completed < 1):
            left = each * (task.total - task.completed)
        if left is not None and end is not None:
            left = min(left, max(0.0, end - time.monotonic()))
        text = "-:--:--" if left is None else str(timedelta(seconds=int(left)))
        return Text(text, style="progress.remaining")


class Progress:
    """Work that runs: what is being done, and how much of it is done."""

    def __init__(self, bar: Bar, total: float | None) -> None:
        self._bar, self._total = bar, total
        self._task = bar.add_task("loading", total=total)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._bar.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def step(self, text: str, number: int | None = None) -> None:
        """The next step begins; `number` counts from 0 where the amount of work is known."""
        if self._bar.console.is_terminal:
            self._bar.update(self._task, completed=number, description=printable(text))
        elif number is None:
            self.say(text)
        else:
            self.say(f"{number + 1} of {self._total:g}  {text}")

    def expect(self, each: float, end: float | None) -> None:
        """A unit is expected to take `each` seconds; all ends at `end` (time.monotonic) at most."""
        self._bar.update(self._task, each=each, end=end)

    def advance(self, share: float = 1.0) -> None:
        """`share` more of the work is done."""
        self._bar.advance(self._task, share)

    def finish(self, text: str) -> None:
        """All that was counted is done; `text` is what is left to do."""
        self._bar.update(self._task, completed=self._total, description=printable(text))


@contextmanager
def progress(total: float | None = None) -> Iterator[Progress]:
    """The progress of `total` units of work; None where it is not known how much there is."""
    counted: tuple[ProgressColumn, ...] = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Remaining(),
    )
    console = Console(stderr=True)
    if without_escapes():  # a line that is rewritten takes escape sequences
        console = Console(stderr=True, force_terminal=False, color_system=None)
    with Bar(
        *(counted if total is not None else (SpinnerColumn(),)),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=3600,  # of all steps: the last minute's may be of one kind
    ) as bar:
        yield Progress(bar, total)
