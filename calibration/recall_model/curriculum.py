"""What is trained when: few facts in short texts first, more and longer as they are learned.

The number of facts doubles whenever nearly all answers are right; lengths and the mix of tasks
follow it. Time pulls along too: the last part of the training sees every length whatever was
learned until then, since a model is good only at lengths that it was trained on.
"""

from collections import deque
from dataclasses import dataclass, field
from math import log2
from typing import NamedTuple

from numpy.random import Generator

FIRST, LAST = 4, 512  # facts in a text
PASSED = 0.95
WINDOW = 16  # batches that a level is judged on

LENGTHS = {256: 0.06, 512: 0.12, 1024: 0.18, 2048: 0.2, 4096: 0.2, 8192: 0.16, 16384: 0.08}
"""How often each length is drawn where all are: the shorter ones have more texts to a batch."""

_PULL = ((0.3, 2048, 16), (0.4, 4096, 64), (0.5, 8192, 128), (0.6, 16384, 256))
"""From this share of the time on, texts up to this length and with so many facts are drawn at
least."""

_EARLY = {
    "pairs": 0.35, "needles": 0.27, "variables": 0.2, "arithmetic": 0.12, "common_words": 0.04,
    "prose": 0.02,
}  # fmt: skip
_LATE = {
    "pairs": 0.06, "needles": 0.31, "variables": 0.27, "arithmetic": 0.18, "common_words": 0.15,
    "prose": 0.03,
}  # fmt: skip


class Stage(NamedTuple):
    """How many facts at most, and how much of the time has gone, 0 to 1."""

    facts: float
    gone: float


def longest(stage: Stage) -> int:
    """The longest text at this stage, in tokens."""
    found = max(256, 32 * int(stage.facts))
    found = max([found, *(length for gone, length, _ in _PULL if stage.gone >= gone)])
    return min(found, max(LENGTHS))


def draw_length(rng: Generator, stage: Stage) -> int:
    allowed = [length for length in LENGTHS if length <= longest(stage)]
    shares = [LENGTHS[length] for length in allowed]
    return int(rng.choice(allowed, p=[share / sum(shares) for share in shares]))


def draw_facts(rng: Generator, stage: Stage) -> int:
    """Half of the texts hold as many facts as the stage has, the others any number."""
    most = max([int(stage.facts), *(facts for gone, _, facts in _PULL if stage.gone >= gone)])
    return most if rng.random() < 0.5 else int(2 ** rng.uniform(0, log2(most)))


def draw_kind(rng: Generator, stage: Stage) -> str:
    share = 1.0 if stage.facts >= 64 or stage.gone >= 0.4 else 0.0
    shares = [(1 - share) * _EARLY[kind] + share * _LATE[kind] for kind in _EARLY]
    return str(rng.choice(list(_EARLY), p=shares))


@dataclass
class Curriculum:
    """Raises the number of facts as answers get right."""

    facts: int = FIRST
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def learn(self, accuracy: float) -> bool:
        """Take in a batch's accuracy in recall; True where the number of facts was raised."""
        self.recent.append(accuracy)
        passed = len(self.recent) == WINDOW and sum(self.recent) / WINDOW >= PASSED
        if not passed or self.facts >= LAST:
            return False
        self.facts *= 2
        self.recent.clear()
        return True
