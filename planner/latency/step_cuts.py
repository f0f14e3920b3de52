"""How a decode step's heads are cut into blocks: rounds of the card, and parts that are merged.

A head is cut into the parts that are done first, so that a few more heads may be fewer blocks: 48
heads of 8,000 tokens are 384, in three rounds of the card, and 64 heads 128, in one. More work
never takes less time, so a step is taken to be no longer than one of more sequences, of whose cuts
those are kept that save rounds or merges.
"""

import functools

import numpy as np
import numpy.typing as npt

from ..memory.activation.workspace import MULTIPROCESSORS, Number, decode_splits

Floats = npt.NDArray[np.float64]

MERGED = 16  # parts of a head that the last of its blocks merges at once (merge.cuh)
CAPACITY = 8192  # tokens from which a head's parts do not depend on its tokens


def further_rounds(heads: Number, blocks: Number, halves: Number) -> Floats:
    """Rounds of blocks after the first. A block fills a multiprocessor, or half of it where heads
    are more than those, since `halves`."""
    two = (np.asarray(halves) > 0) & (np.asarray(heads) > MULTIPROCESSORS)
    return np.maximum(np.ceil(blocks / (MULTIPROCESSORS * np.where(two, 2, 1))) - 1, 0.0)


def merges(heads: Number, blocks: Number) -> Floats:
    """Rounds in which a head's last block merges its parts."""
    parts = np.asarray(blocks) / np.maximum(heads, 1.0)
    return np.where(parts > 1, np.ceil(parts / MERGED), 0.0)


def cuts(heads: int, batch: int, held: int) -> tuple[Floats, Floats]:
    """Heads and blocks, [cuts, 1, 1, 1]: first of `batch` sequences of `heads` heads and `held`
    tokens, then of more sequences that take fewer rounds or merges."""
    found = np.array(_cuts(heads, batch, min(held, CAPACITY)), dtype=np.float64)
    return found[:, :1, None, None], found[:, 1:, None, None]


@functools.lru_cache(maxsize=1024)
def _cuts(heads: int, batch: int, held: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    least: list[tuple[float, float]] = []
    # Two rounds of the card further, a cut as good as any has been met.
    for sequences in range(batch, batch + 2 * MULTIPROCESSORS // heads + 2):
        rows = sequences * heads
        blocks = rows * decode_splits(rows, MULTIPROCESSORS, held)
        price = float(further_rounds(rows, blocks, 1.0)), float(merges(rows, blocks))
        if all(price[0] < one[0] or price[1] < one[1] for one in least):
            found.append((rows, blocks))
            least.append(price)
    return tuple(found)
