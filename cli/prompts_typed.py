"""What a person types for a model: a prompt as an argument or on stdin, a chat's lines."""

import sys
from collections.abc import Iterator

import typer

from ..planner.errors import BadInput
from ..planner.reading import read_stdin_text

PROMPT_LIMIT = 1 << 26
"""Characters of a prompt on stdin, more than any context holds: /dev/zero has no end."""


def prompt_text(prompt: str | None) -> str:
    """The prompt, or stdin's text. Raises BadInput where there is none."""
    example = 'kvpareto run -m MODEL "prompt", or text on stdin'
    if prompt is None and sys.stdin is not None and sys.stdin.isatty():
        raise BadInput("no prompt", example)
    try:
        text = read_stdin_text(PROMPT_LIMIT) if prompt in (None, "-") else prompt
    except UnicodeDecodeError:
        raise BadInput("stdin is no text in UTF-8", "give text") from None
    except OSError as error:
        raise BadInput(f"no prompt: {error.strerror}", example) from None
    if not text:
        raise BadInput("the prompt is empty", "give some text")
    _check_length(text)
    return text


def _check_length(text: str) -> None:
    """Raise BadInput for more text than a prompt may have."""
    if len(text) > PROMPT_LIMIT:
        raise BadInput(f"more than {PROMPT_LIMIT:,} characters of prompt", "give a shorter text")


def check_turns() -> None:
    """Raise BadInput where no line can come."""
    if sys.stdin is None:
        raise BadInput("stdin is closed", "type into a terminal, or give lines on stdin")


def turns() -> Iterator[str]:
    """Lines of stdin, asked for on a terminal, until it ends."""
    asked = sys.stdin.isatty()
    while True:
        if asked:
            typer.echo(">>> ", nl=False, err=True)
        line = sys.stdin.readline(PROMPT_LIMIT + 1)
        _check_length(line)
        if not line:
            if asked:
                typer.echo("", err=True)
            return
        yield line.rstrip("\n")
