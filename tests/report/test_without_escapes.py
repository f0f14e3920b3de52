"""NO_COLOR and dumb terminals: nothing but text, progress too, whatever forces colour."""

import re

import pytest

from kvpareto.cli import run
from kvpareto.report.progress import progress

COMMANDS = [
    ["plan", "-m", "Qwen/Qwen3-8B", "--budget", "24GB"],
    ["plan", "-m", "Qwen/Qwen3-8B", "--budget", "24GB", "--max-context"],
    ["estimate", "-m", "Qwen/Qwen3-8B", "--config", "w4a16-k4v4"],
    ["profiles", "list"],
    ["profiles", "show", "Qwen/Qwen3-8B"],
]
TEXT_ALONE = [("NO_COLOR", "1"), ("TERM", "dumb")]


@pytest.fixture(autouse=True)
def _a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: f"{words[0]}{len(words)}")
@pytest.mark.parametrize(("name", "value"), TEXT_ALONE)
def test_a_command_writes_text_alone(
    name: str,
    value: str,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert run(command) == 0
    shown = "".join(capsys.readouterr())
    assert len(shown) > 100
    assert "\x1b" not in shown
    assert "\r" not in shown


@pytest.mark.parametrize(("name", "value"), TEXT_ALONE)
def test_progress_is_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with progress(2) as shown:
        shown.step("first", 0)
        shown.advance()
    assert capsys.readouterr().err == "1 of 2  first\n"


@pytest.mark.parametrize("columns", [50, 60, 100])
def test_a_dumb_terminal_is_as_wide_as_it_says(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(COMMANDS[2]) == 0
    as_any = capsys.readouterr().out
    monkeypatch.setenv("TERM", "dumb")
    assert run(COMMANDS[2]) == 0
    dumb = capsys.readouterr().out
    assert max(map(len, dumb.splitlines())) <= columns
    text = re.sub("\x1b\\[[0-9;]*m", "", as_any)
    assert dumb.splitlines() == [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("columns", ["0", "", "00"])
def test_no_columns_are_no_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run(COMMANDS[0]) == 0


def test_elsewhere_there_are_colours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(COMMANDS[0]) == 0
    assert "\x1b[" in capsys.readouterr().out
