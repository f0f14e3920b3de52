"""Which tokens vLLM takes in which step, when users send prompts at once.

The scheduler (v1/core/sched/scheduler.py of 0.26.0): sequences that decode take one token each,
what is left of max_num_batched_tokens goes to prompts in the order they came, the last one cut.
"""

from array import array
from collections import deque
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ...light_dataclass import dataclass

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Different steps [D], pieces of prompts in them [P], and the `order` [S] in which they come.

    `count`: how many alike ones after one another a step stands for. `decoding`: sequences that
    decode. `length`: tokens before each of them, on average. `finished`: prompts that end in the
    step, whose first token it samples. `piece_step`, `piece_start`, `piece_rows`: a piece's step,
    the tokens before it, its tokens. `first`, `last`: where in the order [S's index] each user's
    first and last token are.
    """

    count: Floats
    decoding: Floats
    length: Floats
    finished: Floats
    piece_step: Ints
    piece_start: Floats
    piece_rows: Floats
    order: Ints
    first: Ints
    last: Ints

    @property
    def prompt_rows(self) -> Floats:
        """Tokens of prompts in each step [D]."""
        sums = np.bincount(self.piece_step, self.piece_rows, len(self.count))
        return sums.astype(np.float64)


def schedule(users: int, prompt: int, output: int, chunk: int, at_once: int) -> Schedule:
    """`users` prompts of `prompt` tokens that arrive together, `output` tokens each.

    `at_once`: sequences that run together; the others wait for one to end.
    """
    return _scheduled(users, prompt, output, chunk, min(at_once, users))


@lru_cache(maxsize=256)
def _scheduled(users: int, prompt: int, output: int, chunk: int, at_once: int) -> Schedule:
    run = _Run(users, prompt, output, chunk, at_once)
    endings, mark = 0, run.mark()
    while run.ended < users:
        run.advance()
        run.end_group()
        endings += 1
        run.repeat(mark)
        if endings & (endings - 1) == 0:  # ever farther apart: a period of any length is met
            mark = run.mark()
    return _described(run)


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a run was: users who ended and were filled, rounds and steps until then. How it goes on
    while users wait depends on differences of these, the `begun` tokens and `groups` alone."""

    ended: int
    filled: int
    rounds: int
    steps: int
    begun: int
    """Tokens of prompts computed, less those of the users who ended."""
    groups: tuple[tuple[int, int], ...]


class _Run:
    """The scheduler's decisions so far.

    Users take their turns in order: those that ended, that decode, that are filled, that wait.
    Those with one first step end together, `output - 1` rounds after it.
    """

    def __init__(self, users: int, prompt: int, output: int, chunk: int, at_once: int) -> None:
        self.users, self.prompt, self.output = users, prompt, output
        self.chunk, self.at_once = chunk, at_once
        self.first, self.last = np.zeros(users, dtype=np.intp), np.zeros(users, dtype=np.intp)
        # Stretches of different steps: tokens of prompts computed before it, one prompt after
        # another; those that a step takes; after it; its steps; rounds that each step stands for.
        self.stretches: list[tuple[int, int, int, int, int]] = []
        self.over: list[tuple[int, int]] = []  # a different step, and the users who end with it
        self.different = self.steps = self.taken = 0
        self.order = array("q")  # of the steps until the last repetition
        self.ordered = 0  # different steps in it
        self.groups: deque[tuple[int, int]] = deque()  # (rounds when it ends, users)
        self.ended = self.filled = self.rounds = 0

    def advance(self) -> None:
        """Steps until a group ends, in stretches until a prompt is done."""
        prompt, chunk, groups = self.prompt, self.chunk, self.groups
        ended, filled, rounds = self.ended, self.filled, self.rounds
        different, steps, taken = self.different, self.steps, self.taken
        limit = min(self.users, ended + self.at_once) * prompt
        due = groups[0][0] if groups else None
        while rounds != due:
            before, times, count, free = taken, 1, 1, 0
            if before == limit:  # nobody to fill: the same until a group ends
                assert due is not None
                count = due - rounds
                rounds = due
            else:
                free = max(1, chunk - (filled - ended))
                times = -(-((filled + 1) * prompt - before) // free)
                if due is not None and times > due - rounds:
                    times = due - rounds
                taken = min(before + times * free, limit)
                rounds += times
            self.stretches.append((before, free, taken, times, count))
            different += times
            steps += times
            if (done := taken // prompt) > filled:
                self.first[filled:done] = steps - 1
                groups.append((rounds + self.output - 1, done - filled))
                filled = done
                due = groups[0][0]
        self.filled, self.rounds, self.taken = filled, rounds, taken
        self.different, self.steps = different, steps

    def end_group(self) -> None:
        """Let those go who end now."""
        _, size = self.groups.popleft()
        self.last[self.ended : self.ended + size] = self.steps - 1
        self.over.append((self.different - 1, size))
        self.ended += size

    def mark(self) -> _Mark:
        """Where it is now."""
        begun = self.taken - self.ended * self.prompt
        return _Mark(self.ended, self.filled, self.rounds, self.steps, begun, tuple(self.groups))

    def _as_at(self, mark: _Mark) -> bool:
        """Whether it goes on from here as it did from there."""
        later = self.rounds - mark.rounds
        return (
            self.filled - mark.filled == self.ended - mark.ended
            and self.taken - self.ended * self.prompt == mark.begun
            and len(self.groups) == len(mark.groups)
            and all(
                due == then + later and size == users
                for (due, size), (then, users) in zip(self.groups, mark.groups, strict=True)
            )
        )

    def repeat(self, mark: _Mark) -> None:
        """What came since `mark`, as often again as users who wait allow, where it left all as it
        was there."""
        if not self._as_at(mark):
            return
        size, steps = self.ended - mark.ended, self.steps - mark.steps
        if self.ended + self.at_once <= self.users:  # as many wait as take the place of those
            times = (self.users - self.at_once - self.ended) // size
        elif mark.ended + self.at_once > self.users:  # nobody waits for a place
            times = (self.users - self.filled - 1) // size
        else:
            return
        if times < 1:
            return
        later = np.arange(1, times + 1)[:, None]
        self.in_order()
        self.order += self.order[-steps:] * times
        self.steps += times * steps
        self.taken += times * size * self.prompt
        for step_of, start in ((self.first, mark.filled), (self.last, mark.ended)):
            block = step_of[start : start + size] + later * steps
            step_of[start + size : start + size * (times + 1)] = block.ravel()
        rounds = times * (self.rounds - mark.rounds)
        self.groups = deque((due + rounds, users) for due, users in self.groups)
        self.rounds += rounds
        self.ended += times * size
        self.filled += times * size

    def in_order(self) -> None:
        """Put the steps since the last repetition into the order."""
        self.order.extend(range(self.ordered, self.different))
        self.ordered = self.different


def _described(run: _Run) -> Schedule:
    """The schedule of what was decided."""
    prompt, output = run.prompt, run.output
    run.in_order()
    order = np.frombuffer(run.order, dtype=np.int64)
    stretches = np.array(run.stretches)
    stretch = np.repeat(np.arange(len(stretches)), stretches[:, 3])
    began, free, ended, times, rounds = stretches[stretch].T
    step = np.arange(len(stretch)) - _before(stretches[:, 3])[stretch]
    before = began + step * free
    after = np.where(step == times - 1, ended, before + free)
    ending = np.zeros_like(before)
    ending[[place for place, _ in run.over]] = [users for _, users in run.over]
    places = np.zeros_like(before)  # where each step is first
    places[order[::-1]] = np.arange(len(order))[::-1]
    finished = after // prompt - before // prompt
    decoding = _before((finished - ending)[order])[places]
    tokens = _before(
        (rounds * decoding + finished * (prompt + 1) - ending * (prompt + output))[order]
    )[places]  # of those that decode, all together
    length = tokens / np.maximum(1, decoding) + (rounds - 1) / 2
    # A piece ends where a step does, or a prompt.
    owner = before // prompt
    pieces = np.where(after > before, (after - 1) // prompt - owner + 1, 0)
    step = np.repeat(np.arange(len(pieces)), pieces)
    owner = owner[step] + np.arange(len(step)) - _before(pieces)[step]
    start = np.maximum(before[step], owner * prompt)
    return Schedule(
        rounds.astype(np.float64),
        decoding.astype(np.float64),
        length,
        finished.astype(np.float64),
        step,
        (start - owner * prompt).astype(np.float64),
        (np.minimum(after[step], (owner + 1) * prompt) - start).astype(np.float64),
        order,
        run.first,
        run.last,
    )


def _before(changes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of all earlier changes."""
    sums: npt.NDArray[np.int64] = np.cumsum(changes) - changes
    return sums
