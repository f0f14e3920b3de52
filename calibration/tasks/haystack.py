"""The long text that facts are hidden in: sentences in a shuffled order, as many as it takes.

By default sentences of this project's own prose (profiles/haystack.md), or of any file of
the user's. RULER's counterpart is its `essay` haystack; where the text is short and the context
long, sentences come again, as in its `repeat` one.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...planner.errors import BadInput
from ..design.user_text import read_user_text

BUNDLED = Path(__file__).parents[2] / "profiles" / "haystack.md"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]])\s+")


@dataclass(frozen=True, slots=True)
class Haystack:
    """Sentences to draw filler from."""

    sentences: tuple[str, ...]

    @property
    def words(self) -> int:
        """Of all sentences, before any is said again."""
        return sum(len(sentence.split()) for sentence in self.sentences)

    def hide(
        self, facts: Sequence[str], rng: random.Random, *, ordered: bool = False
    ) -> Callable[[int], str]:
        """A function of n: n words of filler with each fact between two sentences of it, at a
        depth that does not depend on n. `ordered` keeps the facts' order.
        """
        depths = [rng.random() for _ in facts]
        if ordered:
            depths.sort()
        order_seed = rng.random()

        def body(words: int) -> str:
            pile = self._take(words, random.Random(order_seed))
            gaps = len(pile) + 1
            # from the back, so that an insertion does not move the places before it
            for depth, fact in sorted(zip(depths, facts, strict=True), reverse=True):
                pile.insert(int(depth * gaps), fact)
            return " ".join(pile)

        return body

    def _take(self, words: int, rng: random.Random) -> list[str]:
        """Sentences with `words` words in all, the last one cut where they end."""
        taken: list[str] = []
        while True:
            for sentence in rng.sample(self.sentences, len(self.sentences)):
                if words <= 0:
                    return taken
                parts = sentence.split()
                if len(parts) > words:
                    sentence = " ".join(parts[:words]).rstrip(".,;:!?") + "."
                taken.append(sentence)
                words -= len(parts)


def sentences_of(text: str) -> Haystack:
    """The sentences of a text. Raises BadInput where there are none."""
    parts = [
        " ".join(sentence.split())
        for paragraph in re.split(r"\n\s*\n", text)
        for sentence in _SENTENCE_END.split(paragraph)
    ]
    kept = tuple(sentence for sentence in parts if sentence)
    if not kept:
        raise BadInput("the haystack is empty", "give a text file with some prose in it")
    return Haystack(kept)


def read_haystack(path: Path | str) -> Haystack:
    """A user's own text, UTF-8. Raises BadInput where it cannot be read or holds no text."""
    return sentences_of(read_user_text(path))


@cache
def bundled_haystack() -> Haystack:
    """The prose that ships with this package."""
    return sentences_of(BUNDLED.read_text(encoding="utf-8"))
