"""Needles in a haystack: numbers hidden in a long text, to be found again."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from .base import Item, Puzzle, Task
from .haystack import Haystack
from .scoring import share_found
from .words import names


@dataclass(frozen=True)
class Needle(Task):
    """`keys` names with `values` seven-digit numbers each; one name is asked for.

    RULER's niah_single_2 (1 key, 1 value), niah_multikey_1 (4 keys), niah_multivalue (4 values),
    with its `essay` haystack. Score: the share of the asked name's numbers found in the answer.
    """

    keys: int = 1
    values: int = 1

    def puzzles(
        self,
        rng: random.Random,
        haystack: Haystack,
        length: int,
        tokens: Callable[[str], int],
    ) -> list[Puzzle]:
        keys = names(rng, self.keys)
        # seven digits, all different: a number is in the text once
        numbers = [
            str(n) for n in rng.sample(range(1_000_000, 10_000_000), len(keys) * self.values)
        ]
        facts = [
            f"The secret number of {key} is {number}."
            for place, key in enumerate(keys)
            for number in numbers[place * self.values : (place + 1) * self.values]
        ]
        body = haystack.hide(facts, rng)
        return [
            self._ask(key, tuple(numbers[place * self.values : (place + 1) * self.values]), body)
            for place, key in enumerate(keys)
        ]

    def _ask(self, asked: str, answers: tuple[str, ...], body: Callable[[int], str]) -> Puzzle:
        several = self.values > 1
        subject = f"The secret number{'s' * several} of {asked} given in the text"
        return Puzzle(
            before="Secret numbers are hidden in the text below. Remember them for the question "
            "behind it.",
            body=body,
            after=(
                f"Question: what are all the secret numbers of {asked} given in the text?"
                if several
                else f"Question: what is the secret number of {asked} given in the text?"
            ),
            prefix=f"{subject} {'are' if several else 'is'}",
            answers=answers,
            ideal=f" {', '.join(answers)}.",
        )

    def score(self, item: Item, generated: str) -> float:
        return share_found(item.answers, generated)
