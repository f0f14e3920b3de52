"""Wrong words given to `load` are told by name, before a weight is read."""

from typing import Any

import pytest

from kvpareto.planner.errors import BadInput
from kvpareto.runtime import load

WORDS: list[tuple[str, dict[str, Any]]] = [
    ("not a configuration: None", {"config": None}),
    ("not a configuration: 3", {"config": 3}),
    ("not a value for context: '4k'", {"context": "4k"}),
    ("not a value for context: 64.5", {"context": 64.5}),
    ("not a value for output: None", {"output": None}),
    ("not a value for batch: '2'", {"batch": "2"}),
    ("no such device: 'gpu'", {"device": "gpu"}),
    ("no such device: 1.5", {"device": 1.5}),
]


@pytest.mark.parametrize(("said", "wrong"), WORDS, ids=[said for said, _ in WORDS])
def test_a_wrong_word_is_told_by_name(said: str, wrong: dict[str, Any]) -> None:
    words = {"config": "w16a16-k8v8", "context": 64, "output": 8, "device": "cpu"} | wrong
    with pytest.raises(BadInput) as caught:
        load("no-such-folder", **words)
    assert (caught.value.message, bool(caught.value.hint)) == (said, True)
