"""Tables find the page that has their place, wherever it is; no place or two is one clear line."""

from pathlib import Path

import pytest

from kvpareto.calibration.evidence.accuracy_tables import DIGEST, digest_table
from kvpareto.calibration.evidence.marked_tables import (
    page_of,
    shown_lines,
    shown_table,
    with_tables,
    write_tables,
)
from kvpareto.planner.errors import BadInput

FIRST = "# A\n\n<!-- one -->\n| a | b |\n| --- | ---: |\n| x | 1 |\n<!-- end -->\n\nBetween.\n"
SECOND = "<!-- two -->\nold\n<!-- end -->\nAnd\n<!-- three -->\n<!-- end -->\n"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    (tmp_path / "first.md").write_text(FIRST)
    (tmp_path / "second.md").write_text(SECOND)
    return tmp_path


def test_each_table_goes_to_its_page(pages: Path) -> None:
    write_tables({"two": "new", "one": "| c |", "three": "3"}, pages)
    assert (pages / "first.md").read_text() == (
        "# A\n\n<!-- one -->\n| c |\n<!-- end -->\n\nBetween.\n"
    )
    assert (pages / "second.md").read_text() == (
        "<!-- two -->\nnew\n<!-- end -->\nAnd\n<!-- three -->\n3\n<!-- end -->\n"
    )


def test_a_table_moves_with_its_place(pages: Path) -> None:
    assert page_of("two", pages).name == "second.md"
    (pages / "second.md").rename(pages / "third.md")
    assert page_of("two", pages).name == "third.md"
    assert shown_table("two", pages) == "old"
    assert shown_table("three", pages) == ""


def test_a_table_without_a_place_is_one_line_and_nothing_is_written(
    pages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        write_tables({"one": "new", "four": "lost"}, pages)
    assert stopped.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: no page of the docs has <!-- four -->"
    assert hint.startswith("hint: ")
    assert (pages / "first.md").read_text() == FIRST
    with pytest.raises(BadInput, match="four"):
        with_tables(FIRST, {"four": "lost"})


def test_a_place_on_two_pages_is_refused(pages: Path) -> None:
    (pages / "copy.md").write_text(SECOND)
    with pytest.raises(BadInput, match=r"copy\.md, second\.md"):
        page_of("two", pages)


def test_lines_are_found_by_their_first_cell(pages: Path) -> None:
    assert shown_lines("one", pages) == {"a": ["a", "b"], "x": ["x", "1"]}


def test_the_digest_is_of_its_tables(tmp_path: Path) -> None:
    """By hand: the first MAE and coverage, the coverage below .9, and no loss of its own if any."""
    own = {"next": "| rows | number | MAE | no loss | coverage | below 0.9 | MAE | coverage |"}
    header = "| rows | number | MAE | mean width | coverage | below 0.9 | MAE | coverage |"
    floors = "| MAE | rows | no loss |\n| --- | --- | --- |\n| cache | 5 | .8 |\n"
    text = f"<!-- floors -->\n{floors}| weights alone | 5 | .7 |\n<!-- end -->\n"
    for name in ("sources", "parts", "next"):
        lines = [line for _, _, table, line in DIGEST if table == name]
        cells = "".join(f"| {line} | 5 | .1 | .2 | .3 | 4 | .5 | .6 |\n" for line in lines)
        text += f"<!-- {name} -->\n{own.get(name, header)}\n| --- |\n{cells}<!-- end -->\n"
    (tmp_path / "page.md").write_text(text)
    shown = [line.strip("| ").split(" | ")[1:] for line in digest_table(tmp_path).splitlines()[2:]]
    lossless = [".8", ".7", ".8", ".7", ".2", ".2"]
    assert shown == [["5", ".1", each, ".3", "4", ".6"] for each in lossless]
    (tmp_path / "page.md").write_text(text.replace("| cache, a model left out", "| another"))
    with pytest.raises(BadInput, match="cache, a model left out"):
        digest_table(tmp_path)
