"""Chained arithmetic: steps found in a long text, carried out one after the other."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from .base import Item, Puzzle, Task
from .haystack import Haystack
from .scoring import share_in_order


@dataclass(frozen=True)
class Arithmetic(Task):
    """`steps` additions and subtractions of two-digit numbers, scattered in order.

    RULER has no counterpart: its answers are copied, while here each generated number is computed
    from the one generated before, so that errors of the cache add up over the answer as they do
    in reasoning. Score: the share of the running totals that appear in the answer in their
    order; one wrong total spoils those after it.
    """

    steps: int = 6
    starts: int = 1
    """Numbers that the same steps are asked to start from: questions about one text."""

    def puzzles(
        self,
        rng: random.Random,
        haystack: Haystack,
        length: int,
        tokens: Callable[[str], int],
    ) -> list[Puzzle]:
        start, changes = _chain(rng, self.steps)
        facts = [
            f"Step {place}: {'add' if change > 0 else 'subtract'} {abs(change)}."
            for place, change in enumerate(changes, 1)
        ]
        body = haystack.hide(facts, rng, ordered=True)
        starts = {start: None}
        while len(starts) < self.starts:
            other = rng.randrange(300, 700)
            if _is_plain(list(accumulate(changes, initial=other))):
                starts[other] = None
        return [self._ask(number, changes, body) for number in starts]

    def _ask(self, start: int, changes: list[int], body: Callable[[int], str]) -> Puzzle:
        totals = list(accumulate(changes, initial=start))[1:]
        lines = [f"after step {place}: {total}" for place, total in enumerate(totals, 1)]
        prefix = f"At the start: {start}\nafter step 1:"
        return Puzzle(
            before="The steps of a calculation are scattered in the text below, in their order.",
            body=body,
            after=f"Question: start with {start} and carry out steps 1 to {self.steps}. "
            "What is the total after each step?",
            prefix=prefix,
            answers=tuple(map(str, totals)),
            ideal="\n".join(lines).removeprefix("after step 1:"),
        )

    def score(self, item: Item, generated: str) -> float:
        return share_in_order(item.answers, generated)


def _chain(rng: random.Random, steps: int) -> tuple[int, list[int]]:
    """A start of three digits and changes of two."""
    while True:
        start = rng.randrange(300, 700)
        changes = [rng.choice((-1, 1)) * rng.randrange(11, 100) for _ in range(steps)]
        if _is_plain(list(accumulate(changes, initial=start))):
            return start, changes


def _is_plain(totals: list[int]) -> bool:
    """Three digits each, all different: a total cannot be right by repeating another number of
    the question."""
    return len(set(totals)) == len(totals) and min(totals) >= 100 and max(totals) <= 999
