"""Where results go: JSON or tables on stdout, plans into files.

JSON holds no NaN and no infinity: what is no number is null. Neither form lets a control character
of somebody's folder name or imported file through to the terminal: JSON escapes it, tables show a
replacement.
"""

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ..planner.errors import printable

PAGE = 40
"""Lines above which the answer is said once more, however high the terminal is."""
UNWRAPPED = 10_000
"""Columns of a console that is no terminal: no line is as long."""
_UNPRINTABLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters but for the line feed, marks that reorder text, halves of characters."""


def to_json(document: Mapping[str, Any], indent: int | None = None) -> str:
    """`document` as JSON text with a line end, safe to print."""
    text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, indent=indent)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document and a newline on stdout."""
    sys.stdout.write(to_json(document))


def print_tables(document: Mapping[str, Any], module: str, printer: str) -> None:
    """`document` through the function `printer` of `report.<module>`.

    Where NO_COLOR is set, and on a dumb terminal, there is no escape sequence at all.
    Into a pipe or a file nothing is wrapped, unless COLUMNS says how wide it is. No line ends in
    blanks, and where the encoding lacks a mark a plainer one stands for it. The line that a printer
    returns stands last where its output is higher than the terminal, or than a page. rich is
    imported only here, so that `--json` does not pay for it.
    """
    from rich.console import Console
    from rich.text import Text

    from .layout.folding import forget_no_sizes
    from .lines import KEPT, print_whole
    from .marks import encodable, without_escapes

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            """Leave a reader that went away to the command line; rich would exit with 1."""
            raise BrokenPipeError

    plain: dict[str, Any] = {"color_system": None} if without_escapes() else {}
    make = partial(PlainConsole, emoji=False, markup=False, highlight=False, **plain)
    forget_no_sizes()
    console = make()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = make(width=UNWRAPPED)
    elif console.is_dumb_terminal:  # rich takes 80 columns for it, whatever it says of itself
        columns, height = shutil.get_terminal_size((80, 25))
        console = make(width=columns, height=height)
    with console.capture() as captured:
        show = getattr(import_module(f".{module}", __package__), printer)
        reminder = show(_for_terminal(document), console)
    text = captured.get()
    height = min(console.height, PAGE) if console.is_terminal else PAGE
    if reminder is not None and text.count("\n") >= height - 1:
        with console.capture() as captured:
            console.print()
            print_whole(console, reminder[0], Text(reminder[1], "bold"))
        text += captured.get()
    lines = [line.rstrip(" ") for line in text.replace(KEPT, " ").split("\n")]
    sys.stdout.write(encodable("\n".join(lines), sys.stdout.encoding or "utf-8"))


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` as JSON to `path`, whole or not at all. Raises BadInput."""
    from ..planner.whole_file import write_whole

    write_whole(path, to_json(document, indent=1))


def _for_terminal(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """`document` without characters that a terminal would obey; itself where it has none."""
    texts: list[str] = []
    _gather(document, texts)
    if "".join(texts).replace("\n", "").isprintable():
        return document
    clean: Mapping[str, Any] = _printable(document)
    return clean


def _gather(value: object, texts: list[str]) -> None:
    """Put every string in `value`, keys too, into `texts`."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        texts.extend(map(str, value))
        for one in value.values():
            if one.__class__ is not float and one.__class__ is not int:
                _gather(one, texts)
    elif isinstance(value, list | tuple):
        for one in value:
            _gather(one, texts)


def _printable(value: Any) -> Any:
    """`value` with every string in it, keys too, as a terminal may be given it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_printable(key): _printable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(one) for one in value]
    return value


def _finite(value: Any) -> Any:
    """`value` with null for every float that JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
