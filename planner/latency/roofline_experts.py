"""What routed experts cost in the roofline: bytes read, products, launches.

A token passes the top_k of a layer's experts. Which ones is taken to be random, so that a pass of
few tokens reads few experts. Packed experts multiply with their matrices as these are stored, those
of a chunk all in one kernel (runtime/weights/grouped/), of a long chunk EXPERT_ROWS rows an expert
at a time: each time reads them again, and fills tiles of its own.
"""

import numpy as np

from ..memory.activation.workspace import EXPERT_ROWS, FEW_ROWS
from .attention_group import Floats, Number
from .card import Card
from .job import LatencyJob

PACKED = 1.9
"""Stored bytes of a weight below which it is packed."""

EXPERT_TILE = 128
"""Rows of a tile of 16-bit experts' products (torch's grouped product on Hopper), the last of which
is half empty in the mean."""
GROUPED_ROWS = 80.0
"""Rows that packed experts' tiles take at each time beside their own: 24 kernels of four models, an
H200 (docs/latency_fit.md)."""
STEP_ROWS = 52.0
"""The same of a step's tiles, which are of 16 rows: 16, 32 and 64 sequences of Qwen3-30B-A3B."""


def reached(job: LatencyJob, tokens: Number) -> Number:
    """Expected fraction of the experts that `tokens` tokens pass, routed at random."""
    return 1.0 - (1.0 - job.expert_share) ** tokens


def step(job: LatencyJob, card: Card) -> Number:
    """Seconds in which a decode step reads its experts and multiplies with them: where packed, of
    few rows (token and expert) one at a time, of more in a chunk's kernel."""
    c = card.c
    kinds = [job.weight < 0.8, job.weight < PACKED]
    rate = np.select(kinds, [c.weights_4, c.weights_8], c.experts_16)
    used = job.expert * reached(job, job.batch)
    read = used * job.weight / (rate * card.stream)
    rows = job.batch * job.expert_share + reached(job, job.batch) * STEP_ROWS
    together = 2 * job.expert * rows / (card.matmul * c.grouped_packed)
    many = (job.weight < PACKED) & (job.batch * job.top_k > FEW_ROWS)
    return np.where(many, np.maximum(together, read), read)


def chunk_products(job: LatencyJob, rows: Number, card: Card) -> Number:
    """Seconds of the experts' products of a chunk; an expert gets its share of the rows."""
    c = card.c
    share = rows * job.expert_share
    packed = share + np.where(share > 0, times(job, rows) * GROUPED_ROWS, 0.0)
    plain = reached(job, rows) * np.maximum(EXPERT_TILE, share + EXPERT_TILE / 2)
    is_packed = job.weight < PACKED
    rate = card.matmul * np.where(is_packed, c.grouped_packed, c.grouped)
    return 2 * job.expert * np.where(is_packed, packed, plain) / rate


def sent(job: LatencyJob, rows: Number, card: Card) -> Number:
    """Seconds in which a chunk's rows go to 16-bit experts and come back, beyond their bytes:
    torch's operations on slices and with a number for each row read and write far below the
    bandwidth."""
    plain = np.where(job.weight < PACKED, 0.0, job.routed_bytes)
    return rows * (card.c.routed_moves - 1.0) * plain / card.stream


def times(job: LatencyJob, rows: Number) -> Number:
    """How often a chunk's experts are multiplied with, as workspace.tokens_at_once cuts it."""
    at_once = np.maximum(np.floor(EXPERT_ROWS / np.maximum(job.expert_share, 1e-9) + 1e-6), 1)
    return np.where(job.weight < PACKED, np.ceil(rows / at_once), 1.0)


def chunk_bytes(job: LatencyJob, rows: Number) -> Number:
    """Bytes of the experts' weights that a chunk reads."""
    often = times(job, rows)
    return job.expert * often * reached(job, rows / often) * job.weight


def launches(job: LatencyJob) -> Number:
    """Torch's own kernels that send tokens through their experts."""
    packed: Floats = np.asarray(job.packed_routed_launches)
    return np.where(job.weight < PACKED, packed, job.routed_launches)
