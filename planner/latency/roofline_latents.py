"""What attention to latents costs in the roofline, in both ways that the runtime has.

Steps, and chunks of several sequences, attend to latents as they are (runtime/kernels/latent.py):
programs of LATENT_ROWS rows of (query, head) go through their part of the latents tile by tile. A
chunk of one sequence takes the latents in pieces, which become keys and values; a library's
attention takes those, cuDNN's where it has a plan for the lengths, torch's own
otherwise.
"""

import numpy as np

from ..memory.activation.workspace import (
    LATENT_KEYS,
    LATENT_ROWS,
    MULTIPROCESSORS,
    latent_splits,
)
from .attention_group import AttentionGroup, Number
from .card import Card
from .efficiency import Coefficients
from .job import LatencyJob

EXPANDING = 6.4
"""What latents' keys and values take beside their product and attention, in passes over them in the
time of a copy: latents are written out, and keys are put together of slices, at a quarter of the
bandwidth (two chunks by kernel, an H200: docs/latency_fit.md)."""
UNPLANNED = 0.12
"""Of the dense rate, torch's attention where cuDNN has no plan: the same chunks."""
BEGIN = 16e-6
"""Seconds of a step's kernel beside its tiles: its rows, and the first tile's latency, that nothing
hides (steps by kernel: 31, 41 and 53 us for eight tiles of 16, 4 and 8 bits)."""
PLANNED_QUERIES, PLANNED_KEYS = 256, 1024
"""Lengths are multiples of these where it has (runtime/kernels/latent.py)."""


def step(job: LatencyJob, c: Coefficients) -> Number:
    """Seconds in which a step attends to latents: tile by tile, and the parts that are put together
    one after another."""
    total: Number = 0.0
    for kind in job.kinds:
        rounds, splits = _rounds(job, kind, 1.0)
        tiles = np.ceil(job.tokens / splits / LATENT_KEYS)
        each = BEGIN + rounds * tiles * _tile(job, c) + splits * c.latent_split
        total = total + kind.latent * kind.layers * each
    return total


def attended(
    job: LatencyJob, kind: AttentionGroup, length: Number, card: Card, own: Number, past: Number
) -> tuple[Number, Number]:
    """Seconds of a chunk's attention, (to itself, to each token before it); `own` and `past` are
    those of a library's kernel that has a plan."""
    rounds, splits = _rounds(job, kind, length)
    each = kind.layers * rounds * _tile(job, card.c) / splits / LATENT_KEYS
    pairs = kind.layers * kind.flops_per_pair * length / (UNPLANNED * card.dense)
    # The last piece before the chunk is as long as what is left of the latents; where chunks are
    # no multiples of PLANNED_KEYS, neither is it, but for some.
    whole = np.asarray(length) % PLANNED_QUERIES == 0
    odd = 1.0 - np.gcd(np.asarray(length, dtype=np.int64), PLANNED_KEYS) / PLANNED_KEYS
    slow = np.where(whole, odd * np.minimum(1.0, kind.segment / job.context), 1.0)
    pieced = np.asarray(kind.staged) > 0
    own = np.where(whole, own, pairs * length / 2) + length * expanding(kind, card, False)
    past = slow * pairs + (1.0 - slow) * past + expanding(kind, card, True)
    return np.where(pieced, own, each * length / 2), np.where(pieced, past, each)


def expanding(kind: AttentionGroup, card: Card, product: bool) -> Number:
    """Seconds in which a latent becomes keys and values, in all layers; `product`: with the product
    that does so, which is one of the layer's where the latents are the chunk's own."""
    moved = EXPANDING * 2 * kind.expanded / card.stream
    return kind.layers * (moved + product * kind.expand_flops / card.matmul)


def pieces(job: LatencyJob, kind: AttentionGroup, length: Number) -> tuple[Number, Number]:
    """Pieces that a chunk attends to: (at position 0, for each token of position). Its own is one,
    what is left of the past another."""
    one = job.context <= kind.segment
    rest = np.where(one, np.maximum(1.0 - length / job.context, 0.0), 0.5)
    return 1.0 + rest, np.where(one, 0.0, 1.0 / kind.segment)


def _rounds(job: LatencyJob, kind: AttentionGroup, queries: Number) -> tuple[Number, Number]:
    """Rounds of programs in which `queries` tokens of each sequence attend to latents as they are,
    and the parts that the latents are cut into."""
    rows = queries * kind.query_heads
    splits = latent_splits(rows, job.batch, job.tokens, MULTIPROCESSORS)
    programs = np.ceil(rows / LATENT_ROWS) * job.batch * splits
    return np.ceil(programs / MULTIPROCESSORS), splits


def _tile(job: LatencyJob, c: Coefficients) -> Number:
    """Seconds of a tile: packed ones are unpacked by every program."""
    packed = (job.k_bits < 16) | (job.v_bits < 16)
    return c.latent_tile * np.where(packed, c.latent_packed, 1.0)
