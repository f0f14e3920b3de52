"""Lines of an answer: a label and what stands behind it, folded only where nothing is broken.

What a person copies stays whole: a configuration is never folded, and a command that is wider than
the terminal goes on behind a backslash, so that a shell takes all of it.
"""

import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .layout.folding import folded, shell_lines

LABEL = 13
KEPT = "\N{BRAILLE PATTERN BLANK}"
"""A blank that rich does not fold at, as it does at every space that Unicode knows."""
_NARROW = 60
"""Columns below which a command begins on a line of its own."""
_INDENT = 4


def together(text: str) -> str:
    """`text` whose numbers are not folded away from their units; output.py puts blanks back."""
    return re.sub(r"(?<=\d) (?=(?:[kMGT]i?B|B|m?s|%|tokens)(?![a-z]))", KEPT, text)


def print_line(console: Console, label: str, text: str) -> None:
    """A line that may be folded between words, under where its text begins; below its label where
    a word is wider than what is left beside it."""
    if not label:
        console.print(Text(together(text)))
        return
    text = together(text)
    if max(map(len, text.split(" "))) > max(console.width - LABEL, 1):  # below its label
        console.print(Text(label, "dim"))
        lines = folded(" " * _INDENT + text, console.width, _INDENT)
        console.print(Text("\n".join(lines)), soft_wrap=True)
        return
    line = Table.grid()
    line.add_column(width=LABEL, style="dim", no_wrap=True)
    line.add_column()
    line.add_row(Text(label), Text(text))
    console.print(line)


def print_whole(console: Console, label: str, text: Text) -> None:
    """A line that is never folded: below its label where both are wider than the terminal."""
    begin = label.ljust(LABEL)
    if console.is_terminal and LABEL + len(text) > console.width:
        begin = f"{label}\n" if label.strip() else ""
    console.print(Text.assemble((begin, "dim"), text), soft_wrap=True, highlight=False)


def print_command(console: Console, label: str, command: str) -> None:
    """A command line, ready to be copied: whole where it fits, else in lines that end in `\\`."""
    if not console.is_terminal or LABEL + len(command) <= console.width:
        print_whole(console, label, Text(command))
        return
    first = LABEL if console.width >= _NARROW else _INDENT
    if first == _INDENT:
        console.print(Text(label, "dim"))
    lines = shell_lines(command, console.width - first)
    for number, line in enumerate(lines):
        begin = label.ljust(LABEL) if first == LABEL and number == 0 else " " * first
        console.print(Text.assemble((begin, "dim"), line), soft_wrap=True, highlight=False)
