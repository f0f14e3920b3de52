"""The time that is left of long work: steady from the start, never beyond a limit that was set."""

import time

import pytest
from rich.console import Console
from rich.progress import Progress as Bar

from kvpareto.report.progress import Progress, Remaining


@pytest.mark.parametrize(
    ("done", "limit", "left"),
    [
        (0, None, "0:05:20"),  # sixteen of 20 s
        (0.5, None, "0:05:10"),
        (0, 120, "0:01:59"),
    ],
)
def test_what_was_expected_counts_until_one_is_done(
    done: float, limit: float | None, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = Bar(Remaining(), console=Console(width=80), disable=True)
    shown = Progress(bar, 16)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.5)
    shown.expect(20, None if limit is None else now + limit)
    shown.advance(done)
    (task,) = bar.tasks
    assert Remaining().render(task).plain == left


def test_nothing_is_said_where_nothing_is_known() -> None:
    bar = Bar(Remaining(), console=Console(width=80), disable=True)
    Progress(bar, 16)
    assert Remaining().render(bar.tasks[0]).plain == "-:--:--"
