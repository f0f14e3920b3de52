"""What attention costs in the roofline: a chunk's products and traffic, a step's, the host's part.

The kvpareto engine takes a chunk's past in segments: each is written out in 16 bits, attended to by
a library's kernel without a mask (`attention_packed`), and merged; the chunk's own tokens, and
what slides, go through a causal kernel (`attention`), a sequence at a time. On Hopper a chunk over
a cache of 4 bits or fewer is staged in 8 and attended to at once (`attention_eight`). What cannot
be staged (capped scores) goes tile by tile (`attention_tiled`). transformers' chunks carry a mask.
"""

import numpy as np

from ..memory.activation.workspace import (
    EIGHT_BITS,
    EIGHT_DIM,
    EIGHT_ROWS,
    FEW_QUERIES,
    MULTIPROCESSORS,
    SEGMENT,
    eight_heads,
    merging_bytes,
    tile_rows,
    tile_splits,
)
from . import roofline_latents as latents
from .attention_group import AttentionGroup, Floats, Number
from .card import Card
from .efficiency import Coefficients
from .job import LatencyJob
from .step_cuts import further_rounds, merges

LAST_SEGMENTS = 1.25  # the chunk, with what is less than a quarter; beside it three of four times
# one piece of quarters, while on average half a segment is counted by length


GENERAL_DECODE = 0.2
"""Of `stream`, a step over widths and tables that the decode kernel does not take: the general
kernel unpacks codes one by one (4-bit codes at 131,072 tokens, before that kernel, H200)."""


def decode_cache(job: LatencyJob, card: Card) -> Number:
    """Seconds in which a decode step goes through the full cache once."""
    c = card.c
    packed = (job.k_bits < 16) | (job.v_bits < 16)
    if c.unpacks_whole_cache:
        # The 16-bit cache is made anew, with several passes over it, and then read.
        moves = np.where(packed, c.unpack_moves, c.cache_moves)
        return moves * _plain_bytes(job) / card.stream
    # A step reads packed bytes once and unpacks them, by side.
    by_channel = (job.by_channel > 0) & (job.k_bits < 16)
    k_rate = _reached(job.k_bits, card) * np.where(by_channel, c.packed_channels, 1.0)
    sides = job.k_bits / k_rate + job.v_bits / _reached(job.v_bits, card)
    sides = np.where(job.coded > 0, (job.k_bits + job.v_bits) / GENERAL_DECODE, sides)
    read = job.seen * job.kv_bytes * sides / (job.k_bits + job.v_bits) / card.stream
    read = np.where(packed, np.maximum(read, c.score * _scores(job)), read)
    return read + _rounds(job, c, read) + latents.step(job, c)


def _scores(job: LatencyJob) -> Number:
    """Scores of a step, of keys and values as they are cached."""
    scores = [
        (1 - kind.latent) * kind.layers * kind.query_heads * np.minimum(job.tokens, kind.reach)
        for kind in job.kinds
    ]
    return job.batch * sum(scores)


def _rounds(job: LatencyJob, c: Coefficients, read: Number) -> Number:
    """Seconds of a step's attention beyond one round of blocks: further rounds, and parts of a head
    that its last block merges; of a larger batch that is cut better, with what it reads more of
    the `read` seconds, where that is less."""
    total: Number = 0.0
    merge = c.merge / np.where(np.asarray(job.conflict_free_merges) > 0, 1.0, c.conflicts)
    held = np.maximum(sum(_held(job, kind) for kind in job.kinds), 1.0)
    for kind in job.kinds:
        further = further_rounds(kind.heads, kind.blocks, job.whole_number_products)
        price = kind.layers * (c.round * further + merge * merges(kind.heads, kind.blocks))
        if np.ndim(kind.heads):
            own = np.asarray(kind.heads)[0]
            more = np.where(own > 0, kind.heads / np.maximum(own, 1.0) - 1.0, 0.0)
            price = price + more * read * _held(job, kind) / held
            price = np.min(price, axis=-4, keepdims=np.ndim(price) > 4)
        total = total + price
    return total


def _held(job: LatencyJob, kind: AttentionGroup) -> Number:
    """Elements of keys and values that a step reads of these layers, of a sequence."""
    return kind.layers * kind.cache_elements * np.minimum(job.tokens, kind.reach)


def _reached(bits: Number, card: Card) -> Floats:
    c = card.c
    return np.select([bits == 2, bits == 4, bits == 8], [c.packed_2, c.packed_4, c.packed_8], 1.0)


def _plain_bytes(job: LatencyJob) -> Number:
    """Bytes of the whole cache in 16 bits."""
    return 2.0 * job.batch * sum(_held(job, kind) for kind in job.kinds)


def chunk_attention(job: LatencyJob, length: Number, card: Card) -> tuple[Number, Number]:
    """Seconds of one chunk's attention: (at position 0, for each token of position).

    A chunk of c queries at position p needs c * (p + c / 2) pairs; within a window, at most
    c * window. Eager attention computes c * (p + c) and moves every score several times.
    """
    level: Number = np.zeros((1, 1, 1))
    slope: Number = np.zeros((1, 1, 1))
    for kind in job.kinds:
        of_kind = _staged if card.c.fused else _as_transformers
        here, growth = of_kind(job, kind, length, card)
        level, slope = level + here, slope + growth
    return level, slope


def _staged(
    job: LatencyJob, kind: AttentionGroup, length: Number, card: Card
) -> tuple[Number, Number]:
    c = card.c
    # A segment is cut into parts until its few queries fill the card; the chunk itself is not.
    filled = card.filled(length * kind.query_heads)
    packed = (job.k_bits < 16) | (job.v_bits < 16)
    # The general kernel splits the keys where few queries would leave the card idle.
    parts = _parts(job, kind, length)
    tiled = np.where(packed, card.tiled_packed, card.tiled)
    tiled = tiled * np.minimum(1.0, parts * _tiles(job, kind, length) / (2 * MULTIPROCESSORS))
    own = np.where(kind.staged > 0, card.attention * filled, tiled)
    past = np.where(kind.staged > 0, card.packed, tiled)
    pairs = job.batch * kind.layers * kind.flops_per_pair * length
    heads_pairs = job.batch * kind.layers * kind.query_heads * length
    softened = pairs + c.softmax * heads_pairs
    slides = kind.reach < job.context
    level: Number = softened * np.where(slides, kind.seen, length / 2) / own
    # The packed past is read, and its 16-bit copy written.
    both = (job.k_bits + job.v_bits) / 32  # of a 16-bit cache's bytes
    bytes_each = 2.0 * job.batch * kind.layers * kind.cache_elements * (both + c.staging_moves)
    written = kind.staged * bytes_each / card.stream
    segments = job.batch * kind.layers / _segment(kind, length)
    written = written + kind.staged * c.card_segment * segments
    each: Number = softened / past
    if np.any(kind.latent):
        to_self, before = latents.attended(job, kind, length, card, level, each)
        taken = np.asarray(kind.latent) > 0
        level, each = np.where(taken, to_self, level), np.where(taken, before, each)
    growth = np.where(slides | (job.chunk >= job.context), 0.0, each + written)
    if not np.any(card.eight):
        return level, growth
    # In 8 bits, past and chunk alike, where the format is, and enough queries are.
    heads = heads_in_8_bits(job, kind, length)
    eight = heads > 0
    # The last thread blocks of a launch leave a part of the card idle.
    blocks = -(-length // EIGHT_ROWS) * np.maximum(heads, 1) * kind.group / MULTIPROCESSORS
    rate = card.eight * blocks / np.ceil(blocks)
    bytes_each = bytes_each * (both + 0.5 * c.staging_moves) / (both + c.staging_moves)
    return (
        np.where(eight, pairs * length / 2 / rate, level),
        np.where(eight, pairs / rate + bytes_each / card.stream, growth),
    )


def heads_in_8_bits(job: LatencyJob, kind: AttentionGroup, length: Number) -> Number:
    """KV heads of a launch in which Hopper attends to chunks of `length` tokens in 8 bits, the last
    of a prompt too; 0 where it does not."""
    few = (job.k_bits <= EIGHT_BITS) & (job.v_bits <= EIGHT_BITS) & (job.tail == 0)
    kv_heads = kind.query_heads // np.maximum(kind.group, 1)
    staged = (
        4
        * kv_heads
        * EIGHT_DIM
        * np.minimum(np.maximum(_segment(kind, length), length), job.tokens)
    )
    room = np.maximum(staged, merging_bytes(kind.query_heads, EIGHT_DIM, length))
    heads = eight_heads(room, length, job.context, kind.query_heads, kv_heads)
    return np.where(few & (np.asarray(kind.eight * job.eight_bit_attention) > 0), heads, 0)


def _tiles(job: LatencyJob, kind: AttentionGroup, length: Number) -> Number:
    """Programs of the general kernel, each of a tile of queries; two of them fill a
    multiprocessor."""
    heads = kind.query_heads // np.maximum(kind.group, 1)
    queries = length * kind.group
    return np.ceil(queries / tile_rows(queries)) * job.batch * heads


def _parts(job: LatencyJob, kind: AttentionGroup, length: Number) -> Number:
    """Parts of the cache that the general kernel attends to apart."""
    heads = kind.query_heads // np.maximum(kind.group, 1)
    held = np.minimum(job.tokens, kind.reach + length)
    parts = tile_splits(length, kind.group, job.batch * heads, held, MULTIPROCESSORS)
    return parts.astype(np.float64)


def _as_transformers(
    job: LatencyJob, kind: AttentionGroup, length: Number, card: Card
) -> tuple[Number, Number]:
    c = card.c
    rows = length * job.batch * kind.query_heads
    rate = np.where(job.chunk >= job.context, card.attention, card.masked * card.filled(rows))
    each = job.batch * kind.layers * (kind.flops_per_pair / rate)
    square = 0.5
    if c.scores_bytes:
        each = each + job.batch * kind.layers * kind.query_heads * c.scores_bytes / card.stream
        square = 1.0
    slides = kind.reach < job.context
    reach = np.minimum(kind.reach, length * square)
    if c.masks_windows:  # a mask hides the keys outside the window, but they are multiplied
        reach = np.minimum(kind.reach + length, job.context)
    level = each * length * np.where(slides, reach, length * square)
    growth = np.where(slides, 0.0, each * length)
    # The cache is gone through for every chunk, half full on average; not at all in one shot.
    packed = (job.k_bits < 16) | (job.v_bits < 16)
    moves = np.where(packed, c.unpack_moves, c.cache_moves - 1) if c.unpacks_whole_cache else 0.0
    held = kind.layers * kind.cache_elements * np.minimum(job.tokens, kind.reach) / job.tokens
    moved = 2.0 * job.batch * moves * held
    if c.repeats_kv:
        repeated = 2 * kind.layers * kind.cache_elements * (1 + 2 * kind.group) * job.batch
        moved = moved + np.where((kind.group > 1) & ~(kind.reach < 2**40), repeated, 0.0)
    return level, growth + np.where(job.chunk >= job.context, 0.0, moved / card.stream)


def attention_host(job: LatencyJob, length: Number, card: Card) -> tuple[Number, Number]:
    """Seconds in which the host launches one chunk's attention, segment by segment: (at position
    0, for each token of position)."""
    level: Number = 0.0
    slope: Number = 0.0
    for kind in job.kinds:
        each = job.batch * kind.staged * kind.layers * card.c.launch_segment
        slides = kind.reach < job.context
        windows = np.ceil(length / np.maximum(SEGMENT - kind.reach + 1, 1.0))
        segment = _segment(kind, length)
        alone = job.context <= segment / 4  # nothing is taken apart from the chunk
        here = each * np.where(slides, windows, np.where(alone, 1.0, LAST_SEGMENTS))
        growth = np.where(slides | alone, 0.0, each / segment)
        if np.any(kind.latent):
            taken = np.asarray(kind.latent) > 0
            each = kind.layers * card.c.launch_latent
            own, more = latents.pieces(job, kind, length)
            here, growth = np.where(taken, each * own, here), np.where(taken, each * more, growth)
        level, slope = level + here, slope + growth
    return level, slope


def _segment(kind: AttentionGroup, length: Number) -> Number:
    """Tokens that a chunk of `length` tokens stages at a time."""
    return kind.segment * np.where(length <= FEW_QUERIES, 2.0, 1.0)
