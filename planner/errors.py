"""The failures a user can cause, each with a hint that says what to do next.

They are raised anywhere below the command line, which alone turns them into
`error: …`, `hint: …` and an exit code. Anything else that escapes is a bug.
"""

from collections.abc import Mapping


class KVParetoError(Exception):
    """An expected failure: one line for the person, one hint, one exit code.

    `message` and `hint` are single lines; longer input is folded and cut by the caller
    through `one_line`. `details` are the same facts as fields of the JSON document (bytes as
    ints), for programs: `{"needed_bytes": 7_680_000_000}`.
    """

    exit_code = 2

    def __init__(
        self, message: str, hint: str = "", details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = one_line(message)
        self.hint = one_line(hint)
        self.details = dict(details or {})


class BadInput(KVParetoError):
    """What was typed or read cannot be understood (exit code 2)."""


class BadConfig(BadInput):
    """A model's config.json is missing something the answer depends on, or contradicts itself."""


class NothingFits(KVParetoError):
    """The question was understood and the answer is no (exit code 1)."""

    exit_code = 1


class MissingDependency(KVParetoError):
    """An extra, a library or a GPU that this command needs is not here (exit code 3)."""

    exit_code = 3


class Interrupted(KVParetoError):
    """Ctrl-C: exit code 130, like every interrupted command."""

    exit_code = 130


def printable(text: str) -> str:
    """`text` without characters that a terminal would obey: a replacement stands for each."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str, limit: int = 400) -> str:
    """`text` on one printable line of at most `limit` characters."""
    folded = " ".join(str(text).split())
    folded = printable(folded)
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"
