"""Buffers that attention over a packed cache works in: sizes both planned and allocated.

The kernels allocate from these functions and the planner counts with them, so the two agree.
All layers share one set of buffers, taken when first needed and held as long as the cache.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Number = float | npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

SEGMENT = 8192  # tokens of one sequence staged in 16 bits at a time, at least
STAGED_BYTES = 2**25  # and as many more, by doublings, as this holds: it stays in the L2 cache
FEW_QUERIES = 512  # up to so many in a chunk, launches and gaps between them cost more than that
PIECES_TO = 1024  # tokens of a chunk up to which it runs as graphs between its attention calls
GRAPH_FROM = 8  # chunks of one size that repay capturing a graph for them
SQUARE_FROM = 512  # tokens of a chunk that meets itself alone, in whose multiples cuDNN plans it
EIGHT_DIM = 128  # channels of a head whose chunks Hopper attends to in 8 bits
EIGHT_BITS = 4  # of keys and of values at most: what 8-bit operands cost is little beside it
EIGHT_TILE = 128  # tokens that are staged in 8 bits under one scale
EIGHT_ROWS = 192  # queries of one head that a thread block takes there
EIGHT_BLOCKS = 96  # thread blocks from which that is faster than segments in 16 bits
EIGHT_ONES = 8  # rows behind the values' channels, of which one is ones
MAX_PARTS = 128  # thread blocks that may share a KV head's tokens in decoding
BLOCK_TOKENS = 192  # counted for a block beside its own: not timed (docs/latency_fit.md)
TAIL_PARTS = (
    3  # more where sinks or a residual exist: sinks, keys waiting for their block, residual
)
FEW_ROWS = 64  # of a product up to which packed weights are read as they are, as was timed
MULTIPROCESSORS = 132  # of an H100 or H200: what decoding is split for where no device is known


def segment_tokens(heads: int, key_dim: int, value_dim: int, chunk: int) -> int:
    """Tokens of a segment: few KV heads get longer ones, and chunks of few queries twice as long
    ones, for fewer launches."""
    tokens = SEGMENT
    while 2 * tokens * heads * (key_dim + value_dim) * 2 <= STAGED_BYTES:
        tokens *= 2
    return 2 * tokens if chunk <= FEW_QUERIES else tokens


def goes_square(chunk: int, keys: int) -> bool:
    """Whether a chunk and the keys that end with it go through cuDNN's causal attention."""
    return chunk == keys and chunk >= SQUARE_FROM and chunk % SQUARE_FROM == 0


def staging_bytes(heads: int, key_dim: int, value_dim: int, held: int, chunk: int) -> int:
    """Keys and values of one segment in 16 bits, in a cache of `held` tokens.

    The chunk itself is the last segment, so the buffer holds that too where it is longer.
    """
    longest = max(segment_tokens(heads, key_dim, value_dim, chunk), chunk)
    return heads * min(longest, max(held, chunk)) * (key_dim + value_dim) * 2


def merging_bytes(query_heads: Any, value_dim: int, chunk: Any) -> Any:
    """Float32 sums over segments, and two log-sum-exps, of a chunk's queries."""
    return query_heads * chunk * (value_dim + 2) * 4


def eight_head_bytes(tokens: Number, dim: int) -> Number:
    """What one KV head of `tokens` tokens takes when staged in 8 bits: both sides, two scales a
    tile, the keys' mean."""
    return -(-tokens // EIGHT_TILE) * (EIGHT_TILE * (2 * dim + EIGHT_ONES) + 32) + 4 * dim


def eight_heads(
    room: Number, new: Number, tokens: Number, query_heads: Number, kv_heads: Number
) -> Number:
    """KV heads that a launch takes in 8 bits, of chunks of `new` queries over `tokens` tokens in
    `room` bytes; 0 where they are too few to fill the device."""
    at_once = np.minimum(kv_heads, room // eight_head_bytes(tokens, EIGHT_DIM))
    launches = -(-kv_heads // np.maximum(at_once, 1))
    alike = -(-kv_heads // launches)
    blocks = -(-new // EIGHT_ROWS) * alike * (query_heads // kv_heads)
    return np.where((at_once > 0) & (blocks >= EIGHT_BLOCKS), alike, 0)


def decode_splits(rows: int, processors: int, held: int) -> int:
    """Blocks that share the tokens of one of `rows` (sequence, KV head) pairs.

    The fewest that are done first, in rounds of the device, each of a block's tokens and of
    BLOCK_TOKENS; at least 64 tokens each.
    """
    most = max(1, min(MAX_PARTS, max(8, processors // rows), -(-held // 64)))

    def time(parts: int) -> float:
        return -(-rows * parts // processors) * (held / parts + BLOCK_TOKENS)

    return min(range(1, most + 1), key=lambda parts: (time(parts), parts))


def block_heads(group: int) -> int:
    """Query heads of one KV head that a block of decoding takes: all `group`, or equal parts of 8
    at most."""
    return next(n for n in range(min(8, group), 0, -1) if group % n == 0)


def tile_splits(new: Number, group: Number, rows: Number, held: Number, processors: int) -> Ints:
    """Parts of a cache of `held` tokens that the general kernel's programs attend to apart, so that
    the tiles of `new` tokens' queries, `group` heads a KV head, fill the device. `rows`: (sequence,
    KV head) pairs. Shapes broadcast."""
    queries = np.asarray(new) * group
    programs = -(-queries // tile_rows(queries)) * rows
    parts = np.minimum(2 * processors // np.maximum(programs, 1), np.asarray(held) // 256)
    return np.maximum(parts, 1).astype(np.int64)


def tile_rows(queries: Number) -> Ints:
    """Query rows of one program of the general kernel: a power of two, 16 to 64."""
    wide = 2.0 ** np.ceil(np.log2(np.maximum(queries, 1)))
    return np.clip(wide, 16, 64).astype(np.int64)


EXPERT_ROWS = 128
"""Rows that a packed expert multiplies with at a time, by an even share: a tile of its kernel."""


def tokens_at_once(tokens: int, top_k: int, experts: int) -> int:
    """Tokens of a chunk whose chosen packed experts are multiplied at a time."""
    return min(tokens, max(1, EXPERT_ROWS * experts // top_k))


LATENT_ROWS = 16  # (query, head) rows of one program of the latents' kernel
LATENT_KEYS = 32  # tokens of a tile of it
EXPANDED_BYTES = 2**26  # keys and values of a piece of latents, expanded in 16 bits for all heads


def latent_splits(queries: Any, batch: Any, held: Any, processors: int) -> Any:
    """Parts of a cache of `held` tokens that the latents' kernel attends to apart, so that
    `queries` rows of (query, head) of each of `batch` sequences fill the device. Shapes
    broadcast."""
    programs = -(-queries // LATENT_ROWS) * batch
    parts = np.minimum(2 * processors // programs, -(-held // 256))
    return np.maximum(1, parts)


def latent_piece(heads: int, width: int) -> int:
    """Latents expanded at a time, `width` key and value channels for each head: a power of two."""
    tokens = 8192
    while tokens > 256 and 2 * tokens * heads * width > EXPANDED_BYTES:
        tokens //= 2
    return tokens


def partial_bytes(
    batch: int, query_heads: int, rows: int, value_dim: int, held: int, processors: int, tail: bool
) -> int:
    """Partial results of one decode step: float32 sums, norms and maxima; arrival counters."""
    parts = decode_splits(rows, processors, held) + (TAIL_PARTS if tail else 0)
    return parts * batch * query_heads * (value_dim + 2) * 4 + rows * 4


def eight_bit_bytes(rows: int, inputs: int) -> tuple[int, int]:
    """Bytes of `rows` of inputs in e4m3, and of their float32 scales."""
    return rows * inputs, 4 * rows
