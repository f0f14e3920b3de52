"""A loaded model under one configuration: prefill, generate, and what it takes of memory."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..planner.errors import BadInput
from ..planner.formats.configuration import Configuration
from ..planner.models.spec import ModelSpec
from .attention import register
from .cache.kv_cache import PackedCache, check_16_bits
from .cache.layer_state import Clock
from .forward import Forward
from .generation.check_call import check_call, check_requests, new_tokens
from .generation.decode import decode
from .generation.prefill import chunk_sizes, prefill
from .generation.sampling import GREEDY, Sampling
from .generation.teacher_forcing import forced_logits
from .generation.tokenization import Prompt, encode, stop_tokens, stream_text
from .loan import borrow, give_back
from .one_call import OneCall
from .serving.queue import Answer, Counts, PromptRequest, Queue
from .session_results import Generation, MemoryUse, held_bytes


class Session:
    """A model whose attention reads a packed cache. A context manager: leaving it closes it.

    Several sessions live side by side, on one model or on several; a model that was handed in
    gets its own attention back when the last session on it closes. A session runs one call at a
    time: a second thread is refused, and a stream that is read on after the session's next call
    has begun. Threads want a session each.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        spec: ModelSpec,
        config: Configuration,
        *,
        tokens: int,
        batch: int = 1,
        tokenizer: PreTrainedTokenizerBase | None = None,
        graphs: bool = True,
        fused: bool | None = None,
        kernels: bool = True,
        dynamic: Callable[[int], int] | None = None,
        owned: bool = False,
    ) -> None:
        """`tokens` is the cache's capacity for each of `batch` sequences.

        `graphs` and `kernels` can be switched off to compare: kernels off is the reference.
        `fused` replaces norms, RoPE and SwiGLU by fused kernels (fused.py); None = on a GPU.
        `owned` lets go of the model when the session closes.
        `dynamic` chooses the chunk of a `+pcdyn` configuration, see prefill.py.
        """
        if kernels:
            check_16_bits(model.device, model.dtype)
        register()
        self.model = model
        self.spec = spec
        self.config = config
        self.tokenizer = tokenizer
        self._dynamic = dynamic
        self._owned = owned
        self.device = model.device
        self._one_call = OneCall()
        self._length = 0  # tokens that RoPE is held still for
        self.cache = PackedCache(
            spec,
            config,
            tokens=tokens,
            batch=batch,
            device=model.device,
            dtype=model.dtype,
            kernels=kernels,
        )
        model.eval()
        if fused is None:
            fused = model.device.type == "cuda" and find_spec("triton") is not None
        self._loan = borrow(model, self, fused=fused)
        self.forward = Forward(model, self.cache, graphs=graphs)
        self.forward.turn = self._turn
        self.stops = stop_tokens(model, tokenizer)

    @property
    def why_eager(self) -> str | None:
        """Why passes run without CUDA graphs; None where they are captured."""
        return self.forward.why_eager

    def prefill(self, prompt: Prompt, max_new_tokens: int = 0) -> Tensor:
        """Empty the cache and run the prompt; the last token's logits [B, V].

        `max_new_tokens` is what will follow, for models whose RoPE depends on the length.
        Raises BadInput for a prompt that does not fit the cache, NothingFits for want of memory.
        """
        with self._one_call.alone():
            return self._prefill(prompt, max_new_tokens)

    def chunks(self, tokens: int) -> list[int]:
        """The sizes of the chunks in which `tokens` prompt tokens are prefilled."""
        return list(chunk_sizes(tokens, self.config, self._dynamic))

    def logits(
        self, prompt: Prompt, positions: Tensor, chunks: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """Teacher-forced: for each chunk the logits [B, n, V] at the `positions` within it.

        See teacher_forcing.py. `chunks` replaces the configuration's own chunks, to keep step with
        another session. Raises BadInput for a prompt that does not fit, NothingFits for want of
        memory.
        """
        with self._one_call.alone():
            ids, starts = self._admit(prompt)
            sizes = self.chunks(ids.shape[1]) if chunks is None else chunks
            logits = forced_logits(self.forward, ids, positions, sizes, starts=starts)
            return self._one_call.readable(logits)

    def _turn(self) -> AbstractContextManager[None]:
        eight = self.config.activation_bits == 8
        return self._loan.turn(self._length, rows_in_8_bits=eight)

    def _prefill(self, prompt: Prompt, max_new_tokens: int | None) -> Tensor:
        ids, starts = self._admit(prompt, max_new_tokens)
        self.cache.reset()
        self.forward.capture(1)
        return prefill(
            self.forward,
            ids,
            self.config,
            starts=starts,
            dynamic=self._dynamic,
        )

    def _admit(self, prompt: Prompt, more: int | None = 0) -> tuple[Tensor, Tensor]:
        """Tokens [B, T] and left padding [B] on the device, of a call that begins and is followed
        by `more` tokens, or as many as `generate` gives by default. Raises BadInput if they do not
        fit, or are no tokens of this model."""
        ids, starts = encode(prompt, self.tokenizer, pad_id=0)
        embedding: Any = self.model.get_input_embeddings()
        rows = embedding.weight.shape[0]
        if not 0 <= int(ids.min()) <= int(ids.max()) < rows:
            strange = next(t for t in ids.flatten().tolist() if not 0 <= t < rows)
            raise BadInput(
                f"token {strange} is beyond the model's vocabulary of {rows}",
                "the tokenizer and the model do not belong together, or the tokens are of another",
            )
        batch = self.cache.clock.starts.shape[0]
        if ids.shape[0] != batch:
            raise BadInput(
                f"{ids.shape[0]} sequences for a cache of {batch}",
                f"load with batch={ids.shape[0]}",
            )
        if ids.shape[1] > self.cache.capacity:
            raise BadInput(
                f"a prompt of {ids.shape[1]} tokens does not fit a cache of {self.cache.capacity}",
                "load with a longer context, or cut the prompt",
            )
        self._one_call.begin()
        room = self.cache.capacity - ids.shape[1] + 1  # the last token chosen is never appended
        self._length = ids.shape[1] + new_tokens(more, room)
        return ids.to(self.device), starts.to(self.device)

    def steps(
        self,
        prompt: Prompt,
        max_new_tokens: int | None,
        sampling: Sampling = GREEDY,
        stops: frozenset[int] | None = None,
    ) -> Iterator[list[int]]:
        """Tokens as they are chosen, a list [B] a step, until all have stopped.

        Raises BadInput for what does not fit, NothingFits for want of memory; while it is read,
        NotFinite for logits that are no numbers, BadInput after another call has begun.
        """
        with self._one_call.alone():
            tokens = self._steps(prompt, max_new_tokens, sampling, stops)
            return self._one_call.readable(tokens)

    def _steps(
        self,
        prompt: Prompt,
        max_new_tokens: int | None,
        sampling: Sampling,
        stops: frozenset[int] | None,
    ) -> Iterator[list[int]]:
        check_call(max_new_tokens, sampling, stops)
        logits = self._prefill(prompt, max_new_tokens)
        more = self._length - self.cache.clock.host
        ends = self.stops if stops is None else stops
        return decode(self.forward, logits, more, sampling, ends)

    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        stops: frozenset[int] | None = None,
    ) -> Generation:
        """Generate for every sequence of the prompt, by default 128 tokens at most, or what the
        cache has room for. `stops` replaces the model's stop tokens."""
        ends = self.stops if stops is None else stops
        with self._one_call.alone():
            columns = list(self._steps(prompt, max_new_tokens, sampling, stops))
        tokens = [_until(row, ends) for row in map(list, zip(*columns, strict=True))]
        text = None
        if self.tokenizer is not None:
            text = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return Generation(tokens, text)

    def queue(
        self, requests: Sequence[PromptRequest], sampling: Sampling = GREEDY
    ) -> tuple[Iterator[Answer], Counts]:
        """Requests of unlike length, as many at once as the batch has rows; answers as they end,
        and what was done so far. See serving/queue.py.

        Raises BadInput for a request that can never fit the cache; while answers are read,
        NotFinite, NothingFits, and BadInput after another call has begun.
        """
        check_requests(requests, PromptRequest, self.spec.token_rows)
        with self._one_call.alone():
            queue = Queue(
                self.forward,
                requests,
                chunks=self.chunks,
                sampling=sampling,
                stops=self.stops,
                aligned=self.config.sinks > 0,
            )
            self._one_call.begin()
            self._length = max((len(r.tokens) + r.most for r in requests), default=0)
            return self._one_call.readable(queue.answers()), queue.counts

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
    ) -> Iterator[str]:
        """Text of the first sequence, piece by piece; as many tokens as `generate`."""
        if self.tokenizer is None:
            raise BadInput("this model was loaded without a tokenizer", "use steps() for tokens")
        tokens = (step[0] for step in self.steps(prompt, max_new_tokens, sampling))
        return stream_text(tokens, self.tokenizer, self.stops)

    def memory(self) -> MemoryUse:
        """Bytes that weights and cache take. Raises BadInput once the session is closed."""
        self._one_call.check_open()
        use = MemoryUse(held_bytes(self.model), self.cache.nbytes, None, None)
        if self.device.type != "cuda":
            return use
        allocated = torch.cuda.memory_allocated(self.device)
        return replace(use, allocated=allocated, peak=torch.cuda.max_memory_allocated(self.device))

    def close(self) -> None:
        """Free the cache and the graphs; free the model too where the session loaded it, else
        give it its own attention back, once no other session is open on it. A closed session runs
        nothing any more; closing waits for a call that another thread runs."""
        with self._one_call.closing() as was_open:
            if not was_open:
                return
            self.forward.release()
            self.cache.layers = []
            self.cache.clock = Clock(1, torch.device("cpu"))  # kernels' buffers go with the old one
            give_back(self.model, self)
            del self._loan
            if self._owned:
                del self.model, self.forward
                gc.collect()  # modules and their replaced parts refer to each other
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _until(row: list[int], ends: frozenset[int]) -> list[int]:
    """A row up to and including its first stop token."""
    for place, token in enumerate(row):
        if token in ends:
            return row[: place + 1]
    return row
