"""Text and command lines in as many lines as a width asks for. Nothing that is copied is broken."""

import re
from collections.abc import Sequence
from textwrap import wrap

_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""")
"""A word of a shell's line, with its quotes."""
_REDIRECTIONS = "<", ">", ">>"


def folded(text: str, width: int, hang: int = 0) -> list[str]:
    """`text` in lines of at most `width` where its words allow that, all but the first of which
    begin at column `hang`; a word is never broken."""
    return wrap(
        text, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False
    )


def shell_lines(command: str, width: int) -> list[str]:
    """`command` in lines of at most `width` characters where its words allow that, all but the
    last of which end in a backslash; an option stays beside its value."""
    lines: list[str] = []
    for part in _with_values(_words(command)):
        if lines and len(lines[-1]) + 1 + len(part) + 2 <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _words(command: str) -> list[str]:
    """The words of `command` as they are typed, quotes included; one where nobody can tell."""
    words = _WORD.findall(command)
    return words if " ".join(words) == command else [command]


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
