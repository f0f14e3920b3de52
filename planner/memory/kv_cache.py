"""Bytes of a model's caches: the engine's own count, and what all engines share.

A model's layers are few kinds of mixers; each kind is weighed once, so that a plan can weigh
thousands of formats.
"""

import math
from collections.abc import Callable

from ..engine import Engine, KVBytes
from ..formats.configuration import Configuration
from ..formats.dtypes import DTYPE_BYTES
from ..models.spec import Attention, CompressedAttention, LatentAttention, ModelSpec, RecurrentState
from ..workload import Workload


def kv_bytes(spec: ModelSpec, config: Configuration, workload: Workload, engine: Engine) -> KVBytes:
    """KV bytes of context + output tokens, exact.

    Raises BadInput where the engine cannot hold the cache that the configuration asks for.
    """
    return engine.kv_bytes(spec, config, workload)


def growing(size: Callable[[int], int], tokens: int, step: int) -> KVBytes:
    """KVBytes of a cache that takes `size(tokens)` bytes, whose growth repeats every `step`
    tokens."""
    now, later = size(tokens), size(tokens + step)
    per_token = (later - now) // step
    return KVBytes(now, per_token, now - per_token * tokens)


def rates(spec: ModelSpec) -> int:
    """Tokens after which growth repeats: the longest a layer compresses into one entry."""
    return math.lcm(
        1, *(m.rate for m, _ in spec.mixer_counts if isinstance(m, CompressedAttention))
    )


def state_bytes(spec: ModelSpec, batch: int) -> int:
    """Bytes of the recurrent states and convolution tails of every layer."""
    return (
        sum(
            _state(mixer, spec.dtype) * count
            for mixer, count in spec.mixer_counts
            if isinstance(mixer, RecurrentState)
        )
        * batch
    )


def _state(mixer: RecurrentState, dtype: str) -> int:
    state = mixer.state * DTYPE_BYTES[mixer.state_dtype or dtype]
    return state + mixer.conv * DTYPE_BYTES[mixer.conv_dtype or dtype]


def index_bytes(mixer: Attention | LatentAttention, dtype: str) -> int:
    """Bytes that a sparse-attention indexer caches for each token."""
    indexer = mixer.indexer
    if indexer is None:
        return 0
    return indexer.cached_width * DTYPE_BYTES[indexer.dtype or dtype] + indexer.position_bytes


def kept_tokens(mixer: Attention | LatentAttention, tokens: int) -> int:
    """Tokens transformers' DynamicCache keeps of `tokens`: a window w leaves its last w - 1."""
    window = mixer.window or (mixer.local_chunk if isinstance(mixer, Attention) else None)
    # A window of one token slices nothing off: `[-1 + 1 :]` is the whole tensor.
    return tokens if window is None or window == 1 else min(tokens, window - 1)


def compressed_rest(mixer: CompressedAttention, tokens: int) -> int:
    """Elements a compressing layer keeps beside its entries of `head_dim` channels.

    The window (keys are the values), the tokens that wait to be compressed with their gates,
    and where windows overlap the last half-entry, each for the indexer too.
    """
    waiting, entries = tokens % mixer.rate, tokens // mixer.rate
    small = mixer.indexer.head_dim if mixer.indexer else 0
    series = 2 if mixer.overlaps else 1
    kept = min(tokens, mixer.window - 1) * mixer.head_dim + entries * small
    kept += 2 * waiting * series * (mixer.head_dim + small)
    if mixer.overlaps and entries:
        kept += 2 * mixer.rate * (mixer.head_dim + small)
    return kept
