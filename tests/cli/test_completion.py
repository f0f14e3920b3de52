"""Requests for shell completion that cannot be answered are mistakes, with one line and a hint."""

import subprocess
import sys
from pathlib import Path

import pytest
import shellingham

from kvpareto.cli import run
from kvpareto.cli.completion import VARIABLE

ASKED = {"COMP_WORDS": "kvpareto pl", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "kvpareto pl"}


def ask(request: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, request)
    for name in ASKED:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("request_", "given", "said"),
    [
        ("complete_bash", {}, "without COMP_WORDS"),
        ("complete_bash", {"COMP_WORDS": "kvpareto"}, "without COMP_CWORD"),
        *(
            ("complete_bash", {"COMP_WORDS": "kvpareto", "COMP_CWORD": word}, "no number of a word")
            for word in ("", "x", "-1", "1.5", "9" * 5000)
        ),
        ("complete_zsh", {}, "without _TYPER_COMPLETE_ARGS"),
        ("complete_fish", {}, "without _TYPER_COMPLETE_ARGS"),
        ("complete_powershell", {}, "without _TYPER_COMPLETE_ARGS"),
        ("complete_tcsh", ASKED, "no shell that is known"),
        ("complete_", ASKED, "no shell that is known"),
        ("complete", ASKED, "no shell that is known"),
        ("explain_bash", ASKED, "nothing that a shell asks for"),
        ("1", ASKED, "nothing that a shell asks for"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_that_no_shell_makes_is_a_mistake(
    request_: str, given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ask(request_, given, monkeypatch)
    assert run([]) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert (out, error[:7], hint[:6]) == ("", "error: ", "hint: ")
    assert said in error
    assert VARIABLE in hint


@pytest.mark.parametrize("shell", ["bash", "zsh", "powershell", "pwsh"])
def test_a_shell_that_asks_is_answered(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(f"complete_{shell}", ASKED, monkeypatch)
    assert run([]) == 0
    assert "plan" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
@pytest.mark.parametrize("shell", ["tcsh", None])
def test_an_unknown_shell_is_a_mistake(
    option: str, shell: str | None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    def detect() -> tuple[str, str]:
        if shell is None:
            raise shellingham.ShellDetectionFailure
        return shell, f"/bin/{shell}"

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(shellingham, "detect_shell", detect)
    assert run([option]) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert (out, list(tmp_path.iterdir())) == ("", [])
    assert (shell or "no shell") in error
    assert "bash, zsh, fish" in hint


def test_a_home_that_is_not_there_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("bash", "/bin/bash"))
    monkeypatch.setattr(Path, "home", nobody)
    assert run(["--install-completion"]) == 2
    assert capsys.readouterr().err.startswith("error: this user has no home folder\nhint: ")


def test_the_package_of_the_command_line_runs_too() -> None:
    for module in ("kvpareto", "kvpareto.cli"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout[:9]) == (0, "kvpareto "), module
