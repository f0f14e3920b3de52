"""Text that calibrations read where a person gives none: of the context's length, nothing twice."""

import random
import sys
from collections.abc import Iterator

import pytest
from transformers import AutoTokenizer

from kvpareto.calibration.measure import long_prose
from kvpareto.calibration.measure.long_prose import reference_text
from kvpareto.calibration.measure.prompts import Prompts, PromptTexts
from tests.support.data_files import STORIES

MADE_UP = {
    "b": "Second topic\n************\n\nshared words here\n\nown of b",
    "a": "First topic\n***********\n\nshared words here\n\nown of a\n\nown of a",
    "c": "Third topic\n***********\n\nown of c",
}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Python that documents three topics, every second of which is held back."""
    pytest.importorskip("pydoc_data.topics")
    monkeypatch.setattr("pydoc_data.topics.topics", MADE_UP)
    monkeypatch.setattr(long_prose, "HELD_BACK", 2)
    long_prose._topics.cache_clear()
    yield
    long_prose._topics.cache_clear()


@pytest.fixture
def undocumented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Python whose distribution left the reference out."""
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    long_prose._topics.cache_clear()
    yield
    long_prose._topics.cache_clear()


def prompts(context: int) -> Prompts:
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    return Prompts("stories", tokenizer, PromptTexts((context,), (), 4, 0))


@pytest.mark.usefixtures("made_up")
def test_a_paragraph_is_said_once_and_held_back_topics_are_in_no_other_text() -> None:
    """a and c are held back, b has what a had not: a paragraph of both is the first's."""
    heading = "Second topic\n************"
    assert reference_text(100, random.Random(0)) == f"{heading}\n\nown of b"
    kept = reference_text(100, random.Random(0), held_back=True)
    assert sorted(kept.split("\n\n")) == [
        "First topic\n***********",
        "Third topic\n***********",
        "own of a",
        "own of c",
        "shared words here",
    ]


@pytest.mark.usefixtures("made_up")
def test_as_many_words_as_asked_for_in_whole_paragraphs() -> None:
    """The heading has three words with its line, `own of b` three."""
    assert reference_text(0, random.Random(0)) == ""
    assert reference_text(1, random.Random(0)).split() == ["Second", "topic", "*" * 12]
    assert len(reference_text(4, random.Random(0)).split()) == 6


@pytest.mark.parametrize("context", [512, 1024, 16384])
def test_windows_are_as_long_as_the_context_and_say_nothing_twice(context: int) -> None:
    """What is said again is copied from the cache, and no measure of what is read."""
    pytest.importorskip("pydoc_data.topics")
    asked = prompts(context)
    windows = asked.windows(context)
    assert windows.shape == (2, context)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    for window in windows.tolist():
        parts = [part.strip() for part in tokenizer.decode(window).split(". ") if len(part) > 40]
        assert len(parts) == len(set(parts)) > 5
    assert windows[0].tolist() != windows[1].tolist()


@pytest.mark.usefixtures("undocumented")
def test_windows_end_with_our_prose_where_python_documents_nothing() -> None:
    windows = prompts(16384).windows(16384)
    assert windows.shape[0] == 2
    assert 1024 < windows.shape[1] < 8192
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    for window in windows.tolist():
        parts = [part.strip() for part in tokenizer.decode(window).split(". ") if len(part) > 40]
        assert len(parts) == len(set(parts)) > 5
    assert reference_text(100, random.Random(0)) == ""


def test_maps_are_learnt_from_text_that_no_window_has() -> None:
    """The fourth thousand of its tokens is in no window of 16,384."""
    pytest.importorskip("pydoc_data.topics")
    asked = prompts(16384)
    learnt = asked.long_text(4096).tolist()
    assert len(learnt) == 4096
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    last = tokenizer.decode(learnt[3700:3800])
    assert all(last not in tokenizer.decode(row) for row in asked.windows(16384).tolist())
