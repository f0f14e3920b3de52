"""Text and command lines in as many lines as a width asks for. Nothing that is copied is broken."""

import os
import re
from collections.abc import Sequence
from textwrap import wrap
from typing import TextIO

_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""")
"""A word of a shell's line, with its quotes."""
_COPIED = re.compile(r"`[^`]*`|(?:kvpareto|pip|\S+ -m pip) [^;]*|--?[a-z][\w-]* [^\s;,]+")
"""What is copied from a sentence: a command, an option with its value."""
_USUAL = 80
_KEPT = "\N{NO-BREAK SPACE}"
_REDIRECTIONS = "<", ">", ">>"


def folded(text: str, width: int, hang: int = 0) -> list[str]:
    """`text` in lines of at most `width` where its words allow that, all but the first of which
    begin at column `hang`; a word is never broken."""
    return wrap(
        text, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False
    )


def forget_no_sizes() -> None:
    """Take COLUMNS and LINES out of the environment where they are no size of a terminal: 0 is what
    some say of themselves, and libraries stumble over the rest."""
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch("0*[1-9][0-9]{0,5}", os.environ.get(name, "")):
            os.environ.pop(name, None)


def terminal_columns(stream: TextIO) -> int:
    """Columns of the terminal that `stream` is, as COLUMNS says or the terminal itself."""
    forget_no_sizes()
    if "COLUMNS" in os.environ:
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL
    except (OSError, ValueError):
        return _USUAL


def folded_sentence(text: str, width: int, hang: int = 0) -> list[str]:
    """As `folded`, but commands in `text` stay on one line, for a terminal to wrap: copied from
    there, they are whole."""
    whole = _COPIED.sub(lambda found: found[0].replace(" ", _KEPT), text)
    return [line.replace(_KEPT, " ") for line in folded(whole, width, hang)]


def shell_lines(command: str, width: int) -> list[str]:
    """`command` in lines of at most `width` characters where its words allow that, all but the
    last of which end in a backslash; an option stays beside its value."""
    lines: list[str] = []
    for part in _that_fit(_with_values(_words(command)), width):
        if lines and len(lines[-1]) + 1 + len(part) + 2 <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _words(command: str) -> list[str]:
    """The words of `command` as they are typed, quotes included; one where nobody can tell."""
    words = _WORD.findall(command)
    return words if " ".join(words) == command else [command]


def _that_fit(parts: Sequence[str], width: int) -> list[str]:
    """Parts that a line has room for; of an option and its value that are wider each alone."""
    found: list[str] = []
    for part in parts:
        alone = part.startswith("-") and len(part) + 2 > width
        found += part.split(" ", 1) if alone else [part]
    return found


def _with_values(words: Sequence[str]) -> list[str]:
    """Each option and the word behind it as one, a redirection too; what is neither alone."""
    parts: list[str] = []
    for word in words:
        after_option = parts and parts[-1].startswith("-") and " " not in parts[-1]
        if (parts and parts[-1] in _REDIRECTIONS) or (after_option and not word.startswith("-")):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts
