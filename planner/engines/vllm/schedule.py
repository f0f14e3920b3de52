"""Which tokens vLLM takes in which step, when users send prompts at once.

The scheduler (v1/core/sched/scheduler.py of 0.26.0): sequences that decode take one token each,
what is left of max_num_batched_tokens goes to prompts in the order they came, the last one cut.
"""

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

    @property
    def prompt_rows(self) -> Floats:
        """Tokens of prompts in each step [S]."""
        sums = np.bincount(self.piece_step, self.piece_rows, len(self.count))
        return sums.astype(np.float64)


@lru_cache(maxsize=256)
def schedule(users: int, prompt: int, output: int, chunk: int, at_once: int) -> Schedule:
    """`users` prompts of `prompt` tokens that arrive together, `output` tokens each.

    `at_once`: sequences that run together; the others wait for one to end.
    """
    done, made = [0] * users, [0] * users  # prompt tokens computed, tokens sampled
    first, last = [0] * users, [0] * users
    steps: list[tuple[int, int, float, int]] = []
    pieces: list[tuple[int, int, int]] = []
    running: list[int] = []
    waiting = 0
    while waiting < users or running:
        while waiting < users and len(running) < at_once:
            running.append(waiting)
            waiting += 1
        decoding = [i for i in running if made[i]]
        filling = [i for i in running if not made[i]]
        length = sum(prompt + made[i] for i in decoding) / max(1, len(decoding))
        if not filling:  # the same until a sequence ends
            times = min(output - made[i] for i in decoding)
            steps.append((times, len(decoding), length + (times - 1) / 2, 0))
            for i in decoding:
                made[i] += times
                last[i] = len(steps) - 1
            running = [i for i in running if made[i] < output]
            continue
        free, finished = max(1, chunk - len(decoding)), 0
        for i in decoding:
            made[i] += 1
            last[i] = len(steps)
        for i in filling:
            rows = min(free, prompt - done[i])
            if not rows:
                break
            pieces.append((len(steps), done[i], rows))
            done[i] += rows
            free -= rows
            if done[i] == prompt:
                made[i], first[i], last[i] = 1, len(steps), len(steps)
                finished += 1
        steps.append((1, len(decoding), length, finished))
        running = [i for i in running if made[i] < output]
    count, decode, length_, ends = np.array(steps, dtype=np.float64).T
    step, start, rows_ = np.array(pieces, dtype=np.float64).T
    return Schedule(
        count,
        decode,
        length_,
        ends,
        step.astype(np.intp),
        start,
        rows_,
        np.array(first, dtype=np.intp),
        np.array(last, dtype=np.intp),
    )
