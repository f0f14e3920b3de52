"""Aggregation: which entries of a long list come most often?"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from ...planner.errors import BadInput
from .base import Item, Puzzle, Task
from .haystack import Haystack
from .scoring import share_found
from .words import names

LEVELS = ((10, 30, 3), (10, 10, 3), (5, 6, 2), (3, 4, 1))
"""Common entries, how often each comes, how often any other; the first that fits is taken."""


@dataclass(frozen=True)
class CommonWords(Task):
    """A numbered list in which 10 names come 30 times each and many others 3 times each.

    RULER's cwe (10 common words, 30 and 3 times). The list grows by more of the others, never by
    repeating the common ones, so they get rarer with length. Where 10 x 30 entries would take
    more than half of the prompt the task is scaled down to 10 x 10, 5 x 6 or 3 x 4: scores at
    such lengths compare with each other, not with longer ones. Needs no haystack. Score: the share
    of the common names found in the answer.
    """

    def puzzles(
        self,
        rng: random.Random,
        haystack: Haystack,
        length: int,
        tokens: Callable[[str], int],
    ) -> list[Puzzle]:
        # an entry takes three tokens at the very least, so there are never more of them
        pool = names(rng, max(20, length // 3 // 3))
        level = next(
            (level for level in LEVELS if _entries(level, pool, tokens) <= length / 2), None
        )
        if level is None:
            raise BadInput(
                f"task {self.name} does not fit {length} tokens with this tokenizer",
                "ask for a longer context, or leave this task out",
            )
        count, often, seldom = level
        common, others = pool[:count], pool[count:]
        shuffle_seed = rng.random()

        def body(entries: int) -> str:
            listed = common * often
            listed += [others[i // seldom % len(others)] for i in range(entries)]
            random.Random(shuffle_seed).shuffle(listed)
            return " ".join(f"{place}. {name}" for place, name in enumerate(listed, 1))

        puzzle = Puzzle(
            before="Some entries of the numbered list below come more often than the others. "
            "Remember those.",
            body=body,
            after=f"Question: which {count} entries come most often in the list?",
            prefix=f"The {count} most frequent entries are",
            answers=tuple(common),
            ideal=f" {', '.join(common)}.",
        )
        return [puzzle]

    def score(self, item: Item, generated: str) -> float:
        return share_found(item.answers, generated)


def _entries(level: tuple[int, int, int], pool: list[str], tokens: Callable[[str], int]) -> float:
    """Tokens that the common entries of a level take, from a sample of the pool."""
    sample = pool[:20]
    text = " ".join(f"{place}. {name}" for place, name in enumerate(sample, 101))
    return level[0] * level[1] * tokens(text) / len(sample)
