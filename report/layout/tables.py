"""A table where the terminal has room for it; else a name a line, and what is known of it below."""

from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .folding import folded

_GAP = 2
_NOTHING = "", "-"


def rows_that_fit(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    fold: int | None = None,
    least: int = 20,
    left: Collection[int] = (0,),
    bold: Collection[int] = (),
) -> RenderableType:
    """`rows` under their titles. `fold`: the column whose text may be folded, to `least`
    characters; `left`: those that are not numbers; `bold`: numbers of rows. No titles, no
    heading."""
    named = list(titles) if any(titles) else [""] * len(rows[0]) if rows else []
    sizes = [
        max(len(line) for row in (named, *rows) for line in row[column].split("\n"))
        for column in range(len(named))
    ]
    if fold is not None and sizes:
        sizes[fold] = min(sizes[fold], least)
    if sum(sizes) + _GAP * (len(sizes) - 1) > width:
        named = [title * (column != fold) for column, title in enumerate(named)]
        return _stacked(named, rows, width, bold)
    table = Table(box=None, show_header=any(titles), pad_edge=False)
    for column, title in enumerate(named):
        table.add_column(
            title,
            justify="left" if column in left or column == fold else "right",
            no_wrap=column != fold,
            overflow="fold" if column == fold else "ellipsis",
        )
    for number, row in enumerate(rows):
        table.add_row(*row, style="bold" if number in bold else "")
    return table


def _stacked(
    titles: Sequence[str], rows: Sequence[Sequence[str]], width: int, bold: Collection[int]
) -> RenderableType:
    """What stands for itself, a note or `not measured`, has no title."""
    text = Text(no_wrap=True, overflow="ignore")
    for number, (name, *values) in enumerate(rows):
        told = ", ".join(
            value if value.startswith("not ") else f"{title} {value}".strip()
            for title, value in zip(titles[1:], values, strict=True)
            if value not in _NOTHING
        )
        lines = [name] if number == 0 else ["", name]
        for line in told.split("\n"):
            lines += folded("    " + line, width, 4) if line else []
        text.append("\n".join(lines), "bold" if number in bold else "")
    return Group(text)
