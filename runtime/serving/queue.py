"""Continuous batching within a fixed cache: sequences join and leave while others go on.

    1. While the cache is empty, the first waiting sequences that fit beside each other begin: all
       end their prompt at the same place T, the longest prompt's length.
    2. A step appends one token to every row and chooses the next.
    3. A row whose sequence has ended is free: the next waiting sequence whose prompt is not longer
       than what the batch holds, and whose answer still fits, is prefilled into it (row.py).
    4. When no row runs any more, the cache begins anew.

Sequences are taken in their order, but one that does not fit now is passed over by those that do.
With sinks in the configuration, which are the first positions of the cache, only sequences that
begin there run together: prompts of one length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...planner.errors import BadInput
from ..failures import are_finite, not_finite
from ..forward import Forward
from ..generation.prefill import run_chunks
from ..generation.sampling import Sampling, choose
from .row import RowCache, clear


@dataclass(frozen=True)
class PromptRequest:
    """A prompt's tokens and how many may follow; `number` names its answer."""

    number: int
    tokens: Sequence[int]
    most: int


@dataclass
class Answer:
    """What a request was answered: its tokens, a stop token included, and whether one came."""

    number: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False


@dataclass
class Counts:
    """What a run did, for who shows its speed."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    steps: int = 0
    joined: int = 0
    """Sequences that began while others went on."""


@dataclass
class _Row:
    request: PromptRequest
    answer: Answer


class Queue:
    """Requests over a session's cache. Raises BadInput for one that can never fit."""

    def __init__(
        self,
        forward: Forward,
        requests: Sequence[PromptRequest],
        *,
        chunks: Callable[[int], list[int]],
        sampling: Sampling,
        stops: frozenset[int],
        aligned: bool,
    ) -> None:
        """`chunks` cuts a prompt for prefill. `aligned`: sequences begin at position 0 only."""
        self.counts = Counts()
        self._forward, self._cache = forward, forward.cache
        self._chunks, self._sampling, self._stops = chunks, sampling, stops
        self._aligned = aligned
        self._waiting = list(requests)
        for one in requests:
            self._check(one)
        self._rows: list[_Row | None] = [None] * self._cache.clock.starts.shape[0]
        self._parts = [
            (part, Forward(forward.model, part, graphs=False))
            for part in (RowCache(self._cache, row) for row in range(len(self._rows)))
        ]
        for _, alone in self._parts:
            alone.turn = forward.turn
        self._logits: Tensor | None = None

    def answers(self) -> Iterator[Answer]:
        """Answers as they end. Raises NotFinite for logits that are no numbers."""
        self._cache.reset()
        self._forward.capture(1)
        clear(self._cache)
        device = self._cache.clock.device.device
        generator = self._sampling.generator(device)
        while self._waiting or any(self._rows):
            if not any(self._rows):
                self._begin()
            logits = self._logits
            assert logits is not None  # somebody has begun
            chosen = choose(self._safe(logits), self._sampling, generator)
            yield from self._take(chosen.tolist())
            if any(self._rows):
                self._step(chosen)
                self._join()

    def _check(self, one: PromptRequest) -> None:
        room = self._cache.capacity
        if not one.tokens or one.most < 1:
            raise BadInput(
                f"request {one.number} has nothing to do", "a prompt, and room to answer"
            )
        if len(one.tokens) + one.most - 1 > room:
            raise BadInput(
                f"request {one.number} has {len(one.tokens)} tokens and asks for {one.most}: the "
                f"cache holds {room}",
                "load with a longer context, or ask for fewer tokens",
            )

    def _begin(self) -> None:
        """The first sequences of an empty cache, all of whose prompts end at one place."""
        self._cache.reset()
        chosen: list[PromptRequest] = []
        for one in list(self._waiting):
            if len(chosen) == len(self._rows):
                break
            trial = [*chosen, one]
            place = max(len(x.tokens) for x in trial)
            alike = all(len(x.tokens) == place for x in trial)
            fits = all(self._fits(x, place) for x in trial)
            if fits and (alike or not self._aligned):
                chosen.append(one)
        place = max(len(one.tokens) for one in chosen)
        self._cache.clock.place(place)
        self._cache.clock.begin([place] * len(self._rows))
        for row, one in enumerate(chosen):
            self._prefill(row, one, place)

    def _join(self) -> None:
        """Waiting sequences into free rows, at the place that the batch has reached."""
        place = self._cache.clock.host
        for row, held in enumerate(self._rows):
            if held is not None:
                continue
            for one in self._waiting:
                long = len(one.tokens)
                if self._fits(one, place) and (
                    long == place or (long < place and not self._aligned)
                ):
                    self._prefill(row, one, place)
                    self.counts.joined += 1
                    break

    def _fits(self, one: PromptRequest, place: int) -> bool:
        """Whether an answer that begins at `place` has room; its last token is not appended."""
        return place + one.most - 1 <= self._cache.capacity

    @torch.inference_mode()
    def _prefill(self, row: int, one: PromptRequest, place: int) -> None:
        self._waiting.remove(one)
        part, alone = self._parts[row]
        start = place - len(one.tokens)
        part.begin(start)
        ids = torch.tensor([list(one.tokens)], device=self._cache.clock.device.device)
        logits = run_chunks(alone, ids, self._chunks(len(one.tokens)))
        begins = self._cache.clock.begins
        self._cache.clock.begin([*begins[:row], start, *begins[row + 1 :]])
        if self._logits is None:
            self._logits = logits.new_zeros(len(self._rows), logits.shape[-1])
        self._logits[row] = logits[0]
        self._rows[row] = _Row(one, Answer(one.number))
        self.counts.prompt_tokens += len(one.tokens)

    @torch.inference_mode()
    def _step(self, chosen: Tensor) -> None:
        assert self._logits is not None
        self._logits.copy_(self._forward(chosen[:, None]))
        self.counts.steps += 1

    @torch.inference_mode()
    def _safe(self, logits: Tensor) -> Tensor:
        """Scores of the rows that run; raises where they are no numbers. Idle rows choose 0."""
        idle = torch.tensor([row is None for row in self._rows], device=logits.device)
        if not bool((are_finite(logits) | idle).all()):
            raise not_finite(f"after {self.counts.steps} steps")
        return logits.masked_fill(idle[:, None], 0)

    def _take(self, tokens: list[int]) -> Iterator[Answer]:
        for row, held in enumerate(self._rows):
            if held is None:
                continue
            held.answer.tokens.append(tokens[row])
            self.counts.new_tokens += 1
            held.answer.stopped = tokens[row] in self._stops
            if held.answer.stopped or len(held.answer.tokens) == held.request.most:
                self._rows[row] = None
                yield held.answer
