"""Tables of the docs: as Markdown, and written into the page that has their place.

A place is a line `<!-- name -->` before the table and `<!-- end -->` after it, on one page of docs/
alone. Commands name the table and find the page by it, so a table moves with its two lines.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...planner.errors import BadInput

DOCS = Path(__file__).parents[2] / "docs"
PLACE = re.compile(r"<!-- (?P<name>\w+) -->\n(?P<table>.*?)\n?<!-- end -->", flags=re.DOTALL)


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Lines under a header; floats with three decimals, all but the first column to the right."""
    body = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in line] for line in lines]
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(header), rule, *body])


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """A page whose tables of these names are these; others stay.

    Raises BadInput where the page has no place for one.
    """
    if missing := tables.keys() - {place["name"] for place in PLACE.finditer(text)}:
        raise _no_place(*sorted(missing))

    def current(place: re.Match[str]) -> str:
        name = place["name"]
        return f"<!-- {name} -->\n{tables[name]}\n<!-- end -->" if name in tables else place[0]

    return PLACE.sub(current, text)


def page_of(name: str, folder: Path = DOCS) -> Path:
    """The page with the table's place. Raises BadInput where none has it, or more than one."""
    pages = [path for path in sorted(folder.glob("*.md")) if name in _tables(path)]
    if not pages:
        raise _no_place(name)
    if len(pages) > 1:
        found = ", ".join(path.name for path in pages)
        raise BadInput(f"<!-- {name} --> is on more than one page: {found}", "Leave it on one.")
    return pages[0]


def shown_table(name: str, folder: Path = DOCS) -> str:
    """The table as its page has it. Raises BadInput as page_of does."""
    return _tables(page_of(name, folder))[name]


def shown_lines(name: str, folder: Path = DOCS) -> dict[str, list[str]]:
    """The table's lines on its page as cells, by the first one; the header is one of them.

    Raises BadInput as page_of does.
    """
    lines = [line.strip("| ").split(" | ") for line in shown_table(name, folder).splitlines()]
    return {cells[0]: cells for cells in lines if set(cells[0]) != {"-"}}


def pages_with(tables: Mapping[str, str], folder: Path = DOCS) -> dict[Path, str]:
    """Each table's page, and its text with these tables. Raises BadInput as page_of does."""
    texts: dict[Path, str] = {}
    for name, table in tables.items():
        page = page_of(name, folder)
        text = texts.get(page) or page.read_text(encoding="utf-8")
        texts[page] = with_tables(text, {name: table})
    return texts


def write_tables(tables: Mapping[str, str], folder: Path = DOCS) -> None:
    """Each table into its page, at the end of a command: all of them, or none and exit code 2."""
    try:
        texts = pages_with(tables, folder)
    except BadInput as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    for page, text in texts.items():
        page.write_text(text, encoding="utf-8")


def _tables(page: Path) -> dict[str, str]:
    return {m["name"]: m["table"] for m in PLACE.finditer(page.read_text(encoding="utf-8"))}


def _no_place(*names: str) -> BadInput:
    markers = ", ".join(f"<!-- {name} -->" for name in names)
    hint = "Put this line and <!-- end --> on a page of docs/ where the table belongs."
    return BadInput(f"no page of the docs has {markers}", hint)
