"""Which tokens vLLM takes in which step, when users send prompts at once.

The scheduler (v1/core/sched/scheduler.py of 0.26.0): sequences that decode take one token each,
what is left of max_num_batched_tokens goes to prompts in the order they came, the last one cut.
"""

from collections import deque
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ...light_dataclass import dataclass

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Steps [S], alike ones after one another as one of `count`; and pieces of prompts [P].

    `decoding`: sequences that decode. `length`: tokens before each of them, on average.
    `finished`: prompts that end in the step, whose first token it samples. `piece_step`,
    `piece_start`, `piece_rows`: a piece's step, the tokens before it, its tokens.
    `first`, `last`: the step [S's index] of each user's first and last token.
    """

    count: Floats
    decoding: Floats
    length: Floats
    finished: Floats
    piece_step: npt.NDArray[np.intp]
    piece_start: Floats
    piece_rows: Floats
    first: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    most: int
    """Sequences that run together at most."""

    @property
    def prompt_rows(self) -> Floats:
        """Tokens of prompts in each step [S]."""
        sums = np.bincount(self.piece_step, self.piece_rows, len(self.count))
        return sums.astype(np.float64)


def schedule(users: int, prompt: int, output: int, chunk: int, at_once: int) -> Schedule:
    """`users` prompts of `prompt` tokens that arrive together, `output` tokens each.

    `at_once`: sequences that run together; the others wait for one to end. Where early users end
    before late ones begin, it may limit nobody: the schedule is then that without a limit.
    """
    free = _scheduled(users, prompt, output, chunk, users)
    return free if free.most <= at_once else _scheduled(users, prompt, output, chunk, at_once)


@lru_cache(maxsize=256)
def _scheduled(users: int, prompt: int, output: int, chunk: int, at_once: int) -> Schedule:
    first, last = np.zeros(users, dtype=np.intp), np.zeros(users, dtype=np.intp)
    taken = [0]  # tokens of prompts computed before each step, prompts one after another
    several: dict[int, int] = {}  # steps that stand for more than one round
    over: dict[int, int] = {}  # users who end with a step
    # Users take their turns in order: those that ended, that decode, that are filled, that wait.
    # Those with one first step end together, `output - 1` rounds after it.
    groups: deque[tuple[int, int]] = deque()  # (rounds when it ends, users)
    ended = filled = rounds = 0
    while ended < users:
        before, limit = taken[-1], min(users, ended + at_once) * prompt
        due = groups[0][0] if groups else None
        if before == limit:  # nobody to fill: the same until a group ends
            assert due is not None
            several[len(taken) - 1] = due - rounds
            taken.append(before)
            rounds = due
        else:  # the same until a prompt is done, or a group ends
            free = max(1, chunk - (filled - ended))
            times = -(-((filled + 1) * prompt - before) // free)
            times = times if due is None else min(times, due - rounds)
            taken.extend(range(before + free, before + times * free, free))
            taken.append(min(before + times * free, limit))
            rounds += times
            if (done := taken[-1] // prompt) > filled:
                first[filled:done] = len(taken) - 2
                groups.append((rounds + output - 1, done - filled))
                filled = done
        if groups and groups[0][0] == rounds:
            size = groups.popleft()[1]
            last[ended : ended + size] = len(taken) - 2
            over[len(taken) - 2] = size
            ended += size
    return _described(np.array(taken), several, over, first, last, prompt, output)


def _described(
    taken: npt.NDArray[np.int64],
    several: dict[int, int],
    over: dict[int, int],
    first: npt.NDArray[np.intp],
    last: npt.NDArray[np.intp],
    prompt: int,
    output: int,
) -> Schedule:
    """The schedule of what was decided."""
    rounds = np.ones(len(taken) - 1, dtype=np.int64)
    ending = np.zeros_like(rounds)
    rounds[list(several)] = list(several.values())
    ending[list(over)] = list(over.values())
    finished = np.diff(taken // prompt)
    decoding = _before(finished - ending)
    tokens = _before(
        rounds * decoding + finished * (prompt + 1) - ending * (prompt + output)
    )  # of those that decode, all together
    length = tokens / np.maximum(1, decoding) + (rounds - 1) / 2
    # A piece ends where a step does, or a prompt.
    ends = np.unique(np.concatenate([taken, np.arange(0, taken[-1], prompt)]))
    starts = ends[:-1]
    begun = -(-taken[1:] // prompt)
    return Schedule(
        rounds.astype(np.float64),
        decoding.astype(np.float64),
        length,
        finished.astype(np.float64),
        np.searchsorted(taken, starts, side="right") - 1,
        (starts % prompt).astype(np.float64),
        np.diff(ends).astype(np.float64),
        first,
        last,
        int((begun - _before(ending)).max()),
    )


def _before(changes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of all earlier changes."""
    sums: npt.NDArray[np.int64] = np.cumsum(changes) - changes
    return sums
