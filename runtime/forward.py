"""One pass of the model over the next n tokens: eager, or as captured CUDA graphs.

The cache's lengths live on the device, positions are computed from them there, and the kernels
read them there: the same pass, captured once for a fixed n, is right at every length. That takes
the launch overhead out of decoding (n = 1), and out of small prefill chunks, whose attention
stays between the graphs (piecewise_graphs.py) where it counts on the host.

All passes run on one stream beside the caller's (`own_stream`): a capture needs one, and cuBLAS
keeps a workspace for every stream that it multiplies on.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..planner.errors import one_line
from ..planner.memory.activation.workspace import PIECES_TO
from .attention import capturable, capturable_around
from .cache.cache_name import cache_name
from .cache.kv_cache import PackedCache
from .generation.constants import on_device
from .generation.last_layer import LastLayer
from .generation.piecewise_graphs import PiecewiseGraphs

logger = logging.getLogger(__name__)

WARMUPS = 2  # passes before a capture: autotuning and lazy library handles happen in them


class Forward:
    """The model over a packed cache. Calling it appends [B, n] tokens.

    Returns the last token's logits [B, V]; valid until the next call with the same n, since a
    graph writes them to the same place every time.
    """

    def __init__(self, model: PreTrainedModel, cache: PackedCache, *, graphs: bool) -> None:
        self.model = model
        self.cache = cache
        self._graphs: dict[int, _Captured | _InPieces] = {}
        self._refused: set[int] = set()  # chunks that could not be captured
        self._pool: Any = None  # CUDA's handle of the memory that the graphs share
        self.turn: Callable[[], AbstractContextManager[None]] = nullcontext
        """Held during each pass: whoever else runs the model waits (loan.py)."""
        # MiniMax's class refuses other caches than its own where it is told to use one, and uses
        # what it is given.
        self._use_cache = getattr(model.config, "model_type", "") != "minimax"
        self.why_eager = _why_eager(model, cache, graphs)
        self._last_layer = LastLayer.of(model, cache)
        self.cache_name = cache_name(model)

    def __call__(self, ids: Tensor) -> Tensor:
        self.cache.check_room(ids.shape[1])  # a graph would write past the buffers unasked
        graph = self._graphs.get(ids.shape[1])
        with self.turn(), own_stream(ids.device):
            return self.eager(ids) if graph is None else graph.replay(ids)

    @torch.inference_mode()
    def eager(self, ids: Tensor) -> Tensor:
        with self._of_one_row(ids):
            output = self.model(
                input_ids=ids,
                position_ids=self.cache.clock.positions(ids.shape[1]),
                use_cache=self._use_cache,
                logits_to_keep=1,
                **{self.cache_name: self.cache},
            )
        return output.logits[:, -1]

    def _of_one_row(self, ids: Tensor) -> AbstractContextManager[None]:
        if self._last_layer is None or ids.shape[1] == 1:
            return nullcontext()
        return self._last_layer.of_one_row(ids.numel())

    def capture(self, tokens: int) -> None:
        """Capture the pass over `tokens` tokens. Needs an empty cache, and leaves it empty.

        Where a capture fails (a model that synchronises with the host, say) the pass stays
        eager, and a warning says so once.
        """
        if self.why_eager is not None or tokens in self._graphs or tokens in self._refused:
            return
        kind = self._kind(tokens)
        if kind is None:
            return
        if tokens >= self.cache.capacity:  # no room for the token before it, and nothing to gain
            return
        if self.cache.clock.host:
            raise RuntimeError("a graph is captured on an empty cache")
        try:
            with self.turn(), own_stream(self.cache.clock.device.device):
                graph = kind(self, tokens, self._pool)
            self._graphs[tokens] = graph
            self._pool = graph.graph.pool()
        except RuntimeError as error:  # out of memory too: an eager pass may still fit
            self._refused.add(tokens)
            what = "prefill chunks run" if tokens > 1 else "decoding runs"
            logger.warning("%s without CUDA graphs: %s", what, one_line(str(error)))
            if tokens == 1:
                why = one_line(str(error))
                self.why_eager = f"the model cannot be captured in a CUDA graph: {why}"
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        finally:
            self.cache.reset()

    def release(self) -> None:
        """Drop the graphs and the memory they hold."""
        self._graphs.clear()
        self._pool = None

    def _kind(self, tokens: int) -> "type[_Captured | _InPieces] | None":
        """How a pass of `tokens` tokens can be captured, if it can and gains by it."""
        states = self.cache.states
        if tokens > 1 and self.cache.recurrent:  # a first chunk finds no state, and runs otherwise
            return None
        if all(capturable(state, tokens) for state in states):
            return _Captured
        if tokens <= PIECES_TO and all(capturable_around(state) for state in states):
            return _InPieces
        return None


class _Captured:
    """A graph over `tokens` tokens, its input and its output."""

    def __init__(self, forward: Forward, tokens: int, pool: Any) -> None:
        self.tokens, self.clock = tokens, forward.cache.clock
        self.ids = _warmed_up(forward, tokens)
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        captured = torch.cuda.graph(self.graph, pool=pool, stream=stream)
        with _nothing_collected(), captured, on_device(forward.model):
            self.logits = forward.eager(self.ids)

    def replay(self, ids: Tensor) -> Tensor:
        self.ids.copy_(ids)
        self.graph.replay()
        self.clock.follow(self.tokens)
        return self.logits


class _InPieces:
    """The same in graphs between the attention calls."""

    def __init__(self, forward: Forward, tokens: int, pool: Any) -> None:
        self.tokens, self.clock = tokens, forward.cache.clock
        self.ids = _warmed_up(forward, tokens)
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()  # what the eager passes took comes again, from the graphs' pool
        self.graph = PiecewiseGraphs(pool)
        self.clock.seam = self.graph.seam
        try:
            with _nothing_collected(), on_device(forward.model):
                self.graph.begin()
                self.logits = forward.eager(self.ids)
                self.graph.end()
        except BaseException:
            with suppress(RuntimeError):  # the first error is the cause
                self.graph.end()
            raise
        finally:
            self.clock.seam = None

    @torch.inference_mode()
    def replay(self, ids: Tensor) -> Tensor:
        self.ids.copy_(ids)
        self.clock.follow(self.tokens)  # attention reads it on the host
        self.graph.replay()
        return self.logits


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Without Python's collector: a graph of an earlier session that it frees meanwhile breaks the
    capture."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _warmed_up(forward: Forward, tokens: int) -> Tensor:
    """Run the pass as often as a capture on this stream needs; its input [B, tokens].

    The clock is left as it was for the last pass.
    """
    clock = forward.cache.clock
    where = clock.device.device
    ids = torch.zeros((clock.starts.shape[0], tokens), dtype=torch.long, device=where)
    forward.eager(ids[:, :1])  # the first token is not like the others
    for _ in range(WARMUPS):
        clock.place(1)
        forward.eager(ids)
    clock.place(1)
    return ids


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run on the passes' stream, after what the caller's has been given and before what it will
    be; as it is where there is no GPU."""
    if device.type != "cuda":
        yield
        return
    callers, own = torch.cuda.current_stream(device), _stream(device)
    own.wait_stream(callers)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        callers.wait_stream(own)


@lru_cache(maxsize=16)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _why_eager(model: PreTrainedModel, cache: PackedCache, graphs: bool) -> str | None:
    """Why no graph can be captured; None where it can."""
    if not graphs:
        return "graphs are switched off"
    if cache.clock.device.device.type != "cuda":
        return "no CUDA device"
    for index, state in enumerate(cache.states):
        if not capturable(state, 1):
            return f"attention layer {index} runs on the reference, which reads lengths on the host"
    return None
