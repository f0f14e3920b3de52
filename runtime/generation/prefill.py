"""Chunked prefill: the prompt goes through the model a piece at a time, into the packed cache.

Only the last token's logits are computed, and a chunk's activations are freed (or, in a captured
graph, reused) before the next begins, so beyond the cache the memory depends on the chunk and not
on the context. Chunks are fixed, or follow a memory target as the cache fills.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ...planner.errors import NothingFits
from ...planner.formats.configuration import CHUNKS, Configuration
from ...planner.memory.activation.workspace import GRAPH_FROM
from ..failures import is_out_of_memory
from ..forward import Forward


def chunk_sizes(
    tokens: int, config: Configuration, dynamic: Callable[[int], int] | None = None
) -> Iterator[int]:
    """Sizes of the chunks that `tokens` prompt tokens are cut into.

    `dynamic` gives, for the tokens already cached, the chunk that meets the memory target; it is
    asked before every chunk where the configuration says `pcdyn`.
    """
    done = 0
    while done < tokens:
        if config.dynamic_chunk and dynamic is not None:
            size = dynamic(done)
        else:
            size = config.chunk or tokens
        size = min(size, tokens - done)
        yield size
        done += size


def prefill(
    forward: Forward,
    ids: Tensor,
    config: Configuration,
    *,
    starts: Tensor | None = None,
    dynamic: Callable[[int], int] | None = None,
) -> Tensor:
    """Run [B, T] prompt tokens into the (emptied) cache; the last token's logits [B, V].

    `starts`, int [B], is each sequence's left padding. Raises NothingFits when a chunk's
    activations do not fit in memory, after giving back what they took.
    """
    cache = forward.cache
    cache.reset()
    tokens = ids.shape[1]
    if config.chunk and tokens >= GRAPH_FROM * config.chunk:
        forward.capture(config.chunk)
    if starts is not None and bool(starts.any()):
        cache.pad_left(starts)
    return run_chunks(forward, ids, chunk_sizes(tokens, config, dynamic))


def run_chunks(forward: Forward, ids: Tensor, sizes: Iterable[int]) -> Tensor:
    """Append [B, T] tokens in chunks of `sizes`; the last token's logits [B, V].

    Raises NothingFits when a chunk's activations do not fit, after giving back what they took.
    """
    tokens, done, logits = ids.shape[1], 0, None
    for size in sizes:
        try:
            logits = forward(ids[:, done : done + size])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logits = None
            forward.release()
            forward.cache.reset()
            torch.cuda.empty_cache()
            raise NothingFits(
                f"the activations of a prefill chunk of {size} tokens do not fit, "
                f"at {done} of {tokens} tokens",
                "a smaller prefill chunk (+pc256), or fewer weight or KV bits",
            ) from error
        done += size
    assert logits is not None  # a prompt has at least one token
    return logits


def fitting_chunk(bytes_of: Callable[[int, int], int], target: int) -> Callable[[int], int]:
    """A `dynamic` for `chunk_sizes`: the largest chunk whose total memory stays within `target`.

    `bytes_of(chunk, cached)` is the total memory of running `chunk` tokens over `cached` ones.
    The smallest chunk is taken where none stays within the target.
    """

    def choose(cached: int) -> int:
        fitting = [chunk for chunk in CHUNKS if bytes_of(chunk, cached) <= target]
        return max(fitting, default=CHUNKS[0])

    return choose
