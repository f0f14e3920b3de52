"""What is trained when: few facts in short texts first, more and longer as they are learned.

The number of facts doubles whenever nearly all answers are right; lengths and the mix of tasks
follow it. Variables are counted apart: they are learned much later than plain recall, and not at
all where many are in a text from the start. Time pulls along too: the last part of the training
sees every length whatever was learned until then, since a model is good only at lengths that it
was trained on.
"""

from collections import deque
from dataclasses import dataclass, field
from math import log2
from typing import NamedTuple

from numpy.random import Generator

FIRST = 4  # facts in a text to begin with
MOST, MOST_CHAINED = 512, 64
PASSED, PASSED_CHAINED = 0.95, 0.985
"""Shares of right tokens; of variables many are right by guessing among those in the text."""
WINDOW = 64  # batches that a level is judged on: more than lie ready, made at the level before

LENGTHS = {256: 0.06, 512: 0.14, 1024: 0.2, 2048: 0.2, 4096: 0.18, 8192: 0.14, 16384: 0.08}
"""How often each length is drawn where all are: the shorter ones have more texts to a batch."""
SHORT = 0.65
"""Share of batches that stay as short as few variables ask for, while there are few."""

_PULL = ((0.3, 2048, 16), (0.4, 4096, 64), (0.5, 8192, 128), (0.6, 16384, 256))
"""From this share of the time on, texts up to this length and with so many facts are drawn at
least."""
_PULL_CHAINED = ((0.45, 8), (0.55, 16), (0.65, 32), (0.75, 64))

_EARLY = {
    "pairs": 0.32, "backward": 0.12, "needles": 0.24, "variables": 0.15, "arithmetic": 0.11,
    "common_words": 0.04, "prose": 0.02,
}  # fmt: skip
_LATE = {
    "pairs": 0.02, "backward": 0.16, "needles": 0.25, "variables": 0.32, "arithmetic": 0.09,
    "common_words": 0.13, "prose": 0.03,
}  # fmt: skip


class CurriculumStage(NamedTuple):
    """How many facts at most, of variables and of the rest; the share of the time that has gone;
    tokens of a text at most."""

    facts: float
    chained: float
    gone: float
    longest: float = max(LENGTHS)


def longest(stage: CurriculumStage) -> int:
    """The longest text at this stage, in tokens."""
    length_limit = max(256, 32 * int(stage.facts))
    length_limit = max([length_limit, *(length for gone, length, _ in _PULL if stage.gone >= gone)])
    return min(length_limit, int(stage.longest))


def draw_length(rng: Generator, stage: CurriculumStage) -> int:
    limit = longest(stage)
    if stage.chained < MOST_CHAINED and stage.gone < 0.5 and rng.random() < SHORT:
        limit = min(limit, max(256, 32 * int(stage.chained)))
    allowed = [length for length in LENGTHS if length <= limit]
    shares = [LENGTHS[length] for length in allowed]
    return int(rng.choice(allowed, p=[share / sum(shares) for share in shares]))


def draw_facts(rng: Generator, stage: CurriculumStage, kind: str) -> int:
    """Half of the texts hold as many facts as the stage has, the others any number; of the needles
    many are few, as in the tasks."""
    if kind in ("variables", "backward"):
        most = max([int(stage.chained), *(n for gone, n in _PULL_CHAINED if stage.gone >= gone)])
        return most if rng.random() < 0.5 else int(2 ** rng.uniform(1, log2(most)))
    most = max([int(stage.facts), *(facts for gone, _, facts in _PULL if stage.gone >= gone)])
    turn = rng.random()
    if turn < 0.35:
        return most
    return int(2 ** rng.uniform(0, log2(most if turn < 0.65 else min(most, 16))))


def draw_kind(rng: Generator, stage: CurriculumStage) -> str:
    """A task: a name in `samples.KINDS`."""
    shares = _LATE if stage.facts >= 64 or stage.gone >= 0.4 else _EARLY
    return str(rng.choice(list(shares), p=list(shares.values())))


@dataclass
class Level:
    """A number of facts that rises as answers get right."""

    facts: int
    most: int
    passed: float
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def learn(self, accuracy: float) -> bool:
        """Take in the share of right tokens in a batch; True where the number was raised."""
        self.recent.append(accuracy)
        enough = len(self.recent) == WINDOW and sum(self.recent) / WINDOW >= self.passed
        if not enough or self.facts >= self.most:
            return False
        self.facts *= 2
        self.recent.clear()
        return True
