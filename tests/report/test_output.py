"""What reaches a terminal has no characters that it would obey."""

import pytest

from kvpareto.report.output import _for_terminal

ESCAPE = chr(27)


@pytest.mark.parametrize(
    "text", [ESCAPE, "\\n" + ESCAPE + "[31m", '\\"' + ESCAPE, "\x9b", "\r", "\u202e"], ids=ascii
)
def test_no_character_of_command_is_left(text: str) -> None:
    (found,) = _for_terminal({text: 1})
    assert found.isprintable()
    assert _for_terminal({"model": [{"name": text}]})["model"][0]["name"].isprintable()


def test_a_clean_document_is_not_copied() -> None:
    document = {"path": 'C:\\new "folder"\n', "size": 1.5, "none": None}
    assert _for_terminal(document) is document
