"""Matching answers in generated text: whole words and whole numbers, nothing fuzzy."""

import re
from collections.abc import Sequence

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?!\w)(?!\.\d)")


def share_found(answers: Sequence[str], text: str) -> float:
    """The share of `answers` that stand in `text` as whole words, in any order and case.

    RULER's `string_match_all`, but for whole words: 123 is not found in 41234. A comma between
    thousands (1,234,567) is read as none.
    """
    plain = _THOUSANDS.sub("", text).casefold()
    is_there = [
        re.search(rf"(?<!\w){re.escape(answer.casefold())}(?!\w)", plain) is not None
        for answer in answers
    ]
    return sum(is_there) / len(answers)


def share_in_order(answers: Sequence[str], text: str) -> float:
    """The share of the numbers `answers` that appear in `text` in this order: each is looked for
    behind the one found before it, and one that is missing is passed over.
    """
    numbers = _NUMBER.findall(_THOUSANDS.sub("", text))
    place, in_order = 0, 0
    for answer in answers:
        if answer in numbers[place:]:
            place = numbers.index(answer, place) + 1
            in_order += 1
    return in_order / len(answers)
