"""`--help` on terminals of every width: text is folded, a command goes on behind a backslash.

The library assumes at least 50 columns and leaves examples as they are. Here an option's text
stands below the option where too little room is beside it, and nothing is wider than the terminal
that can be broken.
"""

import re
import shutil
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import typer

from .folding import folded, shell_lines

_LEAST_WIDTH = 20
_BESIDE = 30
"""Characters beside an option's name below which its text has lines of its own."""
_VERBATIM = "\b\n"
"""Before a paragraph whose line ends are kept."""
_ROW = re.compile(r" +\S+(?: [+-]\S+)? +")
"""The first column of a line of a table: one word, or two parts of a configuration."""
_COMMENT = re.compile(r" +# ")
_Formatter: Any = typer.Context.formatter_class


class FoldedHelp(_Formatter):
    """The library's formatter, as wide as the terminal is, up to `max_width`."""

    def __init__(self, *, width: int | None = None, max_width: int | None = None) -> None:
        if width is None:
            columns = min(shutil.get_terminal_size().columns, max_width or 80)
            width = max(columns - 2, _LEAST_WIDTH)
        super().__init__(width=width)

    def getvalue(self) -> str:
        """What was written, without blanks at the ends of lines."""
        return re.sub(" +$", "", super().getvalue(), flags=re.MULTILINE)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The command and its arguments; broken between its words where it is wider alone."""
        begin = f"{'Usage: ' if prefix is None else prefix}{prog}"
        if len(begin) <= self.width:
            super().write_usage(prog, args, prefix)
        else:
            self.write("\n".join(folded(f"{begin} {args}", self.width, 4)) + "\n")

    def write_text(self, text: str) -> None:
        """Paragraphs; of those that keep their line ends only what is too wide is broken."""
        room = self.width - self.current_indent
        super().write_text("\n\n".join(_folded(part, room) for part in text.split("\n\n")))

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Names with their texts beside them, or below."""
        rows = list(rows)
        names = min(max(len(name) for name, _ in rows), col_max) + col_spacing
        if self.width - names - self.current_indent >= _BESIDE:
            super().write_dl(rows, col_max, col_spacing)
            return
        indent = " " * (self.current_indent + 4)
        for name, text in rows:
            lines = [" " * self.current_indent + name]
            lines += wrap(text, self.width, initial_indent=indent, subsequent_indent=indent)
            self.write("\n".join(lines) + "\n")


def _folded(paragraph: str, width: int) -> str:
    if not paragraph.startswith(_VERBATIM):
        return paragraph
    lines: list[str] = []
    for line in paragraph.removeprefix(_VERBATIM).replace("\\\n", "\\\0").split("\n"):
        whole = line.replace("\\\0", "\\\n")
        if max(map(len, whole.split("\n"))) <= width:
            lines.append(whole)
        elif line.startswith("kvpareto "):
            lines += _command(re.sub(r" *\\\0 *", " ", line), width)
        else:
            column = _ROW.match(line)
            hang = 0 if column is None else column.end() if 2 * column.end() <= width else 6
            lines += folded(line, width, hang)
    return _VERBATIM + "\n".join(lines)


def _command(line: str, width: int) -> list[str]:
    """A command to copy, and its comment below it."""
    command, comment = _COMMENT.split(line, maxsplit=1) if _COMMENT.search(line) else (line, "")
    first, *others = shell_lines(command.strip(), width - 2)
    lines = [first, *(f"  {other}" for other in others)]
    return lines + folded(f"  # {comment}", width, 4) if comment else lines
