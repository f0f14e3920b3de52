"""Prose that is longer than this package's own: the reference that comes with Python.

What is said twice in a window is copied from the cache, which loses several times what reading
does. Our prose has 1,000 words; the topics of Python's `help()` have some 50,000, on every machine
that has a whole Python. Where a distribution leaves them out there is no more than our own.
"""

import random
import re
from functools import cache

Topic = tuple[str, ...]
"""Paragraphs."""
HELD_BACK = 8
"""Of so many topics one is in no window: what maps are learnt from is not what they are held to."""
_PARAGRAPH_END = re.compile(r"\n\s*\n")


def reference_text(words: int, rng: random.Random, *, held_back: bool = False) -> str:
    """Paragraphs of `words` words or a few more, no paragraph twice, its topics in an order of
    `rng`; all there are where they are fewer. With `held_back`, of the topics that other texts
    never take. Empty where this Python has no reference, or no words are asked for."""
    topics = [topic for i, topic in enumerate(_topics()) if (i % HELD_BACK == 0) == held_back]
    taken: list[str] = []
    for topic in rng.sample(topics, len(topics)):
        for paragraph in topic:
            if words <= 0:
                return "\n\n".join(taken)
            taken.append(paragraph)
            words -= len(paragraph.split())
    return "\n\n".join(taken)


@cache
def _topics() -> tuple[Topic, ...]:
    """In the order of their names; a paragraph of two topics is the first's alone."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return ()
    known: set[str] = set()
    found = []
    for name in sorted(topics):
        own = dict.fromkeys(part.strip() for part in _PARAGRAPH_END.split(topics[name]))
        found.append(tuple(part for part in own if part and part not in known))
        known.update(own)
    return tuple(found)
