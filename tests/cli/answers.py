"""Command lines run in this process, and what they answer."""

import json
from typing import Any

import pytest

from kvpareto.cli import run


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line, run in this process."""
    code = run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The document of a command that goes well and says nothing on stderr."""
    code, out, err = answer(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)
