"""What is measured of one configuration on the real runtime: divergence, scores, speed, memory."""

import time
from collections.abc import Sequence
from typing import Protocol

import torch

from ...planner.formats.configuration import Configuration
from ...runtime import Session
from ...runtime.failures import is_out_of_memory
from .. import tasks
from ..records.record_file import Memory
from .divergence import Divergence, divergence, tail_of
from .prompts import Prompts
from .reference_logits import ReferenceLogits
from .trial import Speed

SPEED_TOKENS = 16
SPEED_REPEATS = 2  # on a GPU, of which the faster counts: the first may compile and capture


class Batches(Protocol):
    """What a trial asks of the bench that opened it."""

    prompts: Prompts

    def batched(self, config: Configuration, context: int) -> Session:
        """A session for several items at once."""

    def fewer_at_once(self) -> bool:
        """Whether fewer items can be tried."""


class RuntimeTrial:
    """See Trial."""

    def __init__(
        self,
        bench: Batches,
        reference: ReferenceLogits,
        session: Session,
        context: int,
        before: int,
    ) -> None:
        self._bench, self._reference, self._session = bench, reference, session
        self._context, self._before = context, before
        self._windows = bench.prompts.windows(context)
        again = -(-context // self._windows.shape[1])
        self._timed = self._windows[:1].repeat(1, again)[:, :context]
        self._harness_scores: dict[str, Sequence[float]] = {}
        self._batched: Session | None = None
        self._allocator: tuple[int, int] | None = None

    def close(self) -> None:
        """Free what was opened beside the session."""
        if self._batched is not None:
            self._batched.close()
            self._batched = None

    def divergence(self) -> Divergence:
        tail = tail_of(self.window())
        return divergence(self._reference, self._session, self._windows, tail=tail)

    def window(self) -> int:
        return int(self._windows.shape[1])

    def score(self, task: str, first: int, last: int) -> Sequence[float]:
        harness = self._bench.prompts.material.harness
        if harness is None or task not in harness.names:
            return self._generated(task, first, last)
        if task not in self._harness_scores:
            self._harness_scores[task] = harness.score(
                self._session, task, self._bench.prompts.material.items
            )
        return self._harness_scores[task][first:last]

    def _generated(self, task: str, first: int, last: int) -> Sequence[float]:
        (generated_task,) = tasks.find([task])
        items = self._bench.prompts.items(task, self._context)[first:last]
        while True:
            try:
                if self._batched is None:
                    self._batched = self._bench.batched(self._session.config, self._context)
                return tasks.evaluate(self._batched, generated_task, items).per_item
            except Exception as error:
                self.close()
                if not is_out_of_memory(error) or not self._bench.fewer_at_once():
                    raise

    def prompt_tokens(self, task: str) -> int | None:
        harness = self._bench.prompts.material.harness
        return harness.prompt_tokens(task) if harness is not None else None

    def speed(self) -> Speed:
        device = self._session.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        timings = [self._time() for _ in range(SPEED_REPEATS if device.type == "cuda" else 1)]
        use = self._session.memory()
        if use.allocated is not None and use.peak is not None:
            self._allocator = use.allocated - self._before, use.peak - self._before
        return Speed(min(s.ttft_s for s in timings), min(s.tpot_s for s in timings))

    def _time(self) -> Speed:
        # each list of tokens is on the host when it is yielded, so the clock needs no barrier
        started = time.perf_counter()
        steps = self._session.steps(self._timed, SPEED_TOKENS, stops=frozenset())
        next(steps)
        first = time.perf_counter()
        count = sum(1 for _ in steps)
        return Speed(first - started, (time.perf_counter() - first) / max(count, 1))

    def memory(self) -> Memory:
        use = self._session.memory()
        allocated, peak = self._allocator or (None, None)
        return Memory(weights=use.weights, kv=use.kv, allocated=allocated, peak=peak)
