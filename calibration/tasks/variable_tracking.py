"""Variable tracking: which variables end up with a value that is passed on hop by hop?"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_uppercase

from .base import Item, Puzzle, Task
from .haystack import Haystack
from .scoring import share_found


@dataclass(frozen=True)
class Variables(Task):
    """`chains` values, each passed on over `hops` assignments that are scattered in order.

    RULER's vt, with 4 hops as there; a second chain stands beside the asked one, where RULER has
    one alone, so that naming every variable in sight is not an answer. Score: the share of the
    asked chain's hops + 1 variables named in the answer.
    """

    chains: int = 2
    hops: int = 4

    def puzzles(
        self,
        rng: random.Random,
        haystack: Haystack,
        length: int,
        tokens: Callable[[str], int],
    ) -> list[Puzzle]:
        size = self.hops + 1
        variables = _variables(rng, self.chains * size)
        values = rng.sample(range(10_000, 100_000), self.chains)
        chains = [variables[i * size : (i + 1) * size] for i in range(self.chains)]
        queues = [
            [f"VAR {chain[0]} = {value}."]
            + [f"VAR {new} = VAR {old}." for old, new in pairwise(chain)]
            for chain, value in zip(chains, values, strict=True)
        ]
        facts = []
        while any(queues):  # chains interleave, each in its own order
            facts.append(rng.choice([queue for queue in queues if queue]).pop(0))
        body = haystack.hide(facts, rng, ordered=True)
        return [
            Puzzle(
                before="Variables are assigned in the text below, some of them from other "
                "variables. Follow the assignments.",
                body=body,
                after=f"Question: which {size} variables have the value {value} in the end?",
                prefix=f"The {size} variables with the value {value} are",
                answers=tuple(chain),
                ideal=f" {', '.join(chain)}.",
            )
            for chain, value in zip(chains, values, strict=True)
        ]

    def score(self, item: Item, generated: str) -> float:
        return share_found(item.answers, generated)


def _variables(rng: random.Random, count: int) -> list[str]:
    """Different names of five capitals, as RULER's."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(rng.choices(ascii_uppercase, k=5))] = None
    return list(names)
