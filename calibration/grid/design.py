"""Which configurations the grid measures, and in which order.

Every combination of weight bits, K and V bits, granularity, group, block, smoothing, rotation,
window of recent tokens and prefill chunk that the runtime tells apart for heads of 64 channels is
a candidate; hundreds of the thousands are measured. They are drawn so that whatever is done by
the time the clock stops is balanced: rounds deal out the bit pairs in turn, and of a pair's
candidates the next is the one whose values of all other axes have been seen least with it.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

from ...planner.formats.configuration import Configuration, Granularity

WEIGHTS = (16, 4)
BITS = (16, 8, 4, 2)
GROUPS = (None, 32)
CHANNEL_BLOCKS = (32, 128)
TILE_BLOCKS = (64,)
WINDOWS = (0, 128)
CHUNKS = (None, 256)
CONTEXTS = (1024, 4096, 8192)
CHEAP_PAIRS = ((8, 8), (16, 8), (8, 16))
"""Bit pairs that lose next to nothing whatever the layout: dealt every third round."""
CHEAP_EVERY = 3
GRANULARITIES = (
    *[Granularity.PER_TOKEN, Granularity.PER_CHANNEL, Granularity.PER_BLOCK] * 2,
    *[Granularity.PER_TOKEN, Granularity.PER_CHANNEL, Granularity.PER_TENSOR],
)
"""Whose turn it is, round by round."""


def grid(count: int, *, weights: Sequence[int] = WEIGHTS, seed: int = 0) -> list[Configuration]:
    """The first `count` configurations in the order of measurement; the unquantized model, which
    all others are compared with, first, and 4-bit weights alone second."""
    rng = random.Random(f"grid {seed}")
    decks: dict[tuple[int, int], list[Configuration]] = {}
    for config in candidates(weights):
        decks.setdefault((config.k_bits, config.v_bits), []).append(config)
    for deck in decks.values():
        rng.shuffle(deck)
    seen: dict[tuple[int, int], Counter[object]] = {pair: Counter() for pair in decks}
    dealt = [Configuration(weight_bits=bits) for bits in weights]
    turn = 0
    while len(dealt) < count and any(decks.values()):
        pairs = [p for p in decks if p not in CHEAP_PAIRS or turn % CHEAP_EVERY == 0]
        rng.shuffle(pairs)
        for number, pair in enumerate(pairs):
            if decks[pair]:
                wanted = GRANULARITIES[(turn + number) % len(GRANULARITIES)]
                config = min(decks[pair], key=partial(_familiar, wanted, seen[pair]))
                decks[pair].remove(config)
                seen[pair].update(_axes(config))
                dealt.append(config)
        turn += 1
    return dealt[:count]


def candidates(weights: Sequence[int] = WEIGHTS) -> Iterator[Configuration]:
    """All configurations with a quantized cache that differ in what is stored."""
    for bits, k, v in product(weights, BITS, BITS):
        if min(k, v) == 16:
            continue
        for granularity, group, block in _scales(k, v):
            turns = (False,) if granularity is Granularity.PER_CHANNEL else (False, True)
            smooths = turns if k < 16 else (False,)
            for smoothing, rotation, window in product(smooths, turns, WINDOWS):
                for chunk in CHUNKS:
                    yield Configuration(
                        weight_bits=bits,
                        k_bits=k,
                        v_bits=v,
                        granularity=granularity,
                        group_size=group,
                        block_tokens=block,
                        smoothing=smoothing,
                        rotation=rotation,
                        residual=window,
                        chunk=chunk,
                    )


def _scales(k: int, v: int) -> Iterator[tuple[Granularity, int | None, int | None]]:
    """What shares a scale: granularity, group, block of tokens."""
    for group in GROUPS:
        yield Granularity.PER_TOKEN, group, None
        if k < 16:
            for block in CHANNEL_BLOCKS:
                if group is None or v < 16:
                    yield Granularity.PER_CHANNEL, group, block
        for block in TILE_BLOCKS:
            yield Granularity.PER_BLOCK, group, block
    yield Granularity.PER_TENSOR, None, None


def _axes(config: Configuration) -> list[object]:
    """Values of all axes but the bits of K and V, within their granularity."""
    named = ("weight_bits", "group_size", "block_tokens", "smoothing", "rotation", "residual")
    values = [(name, getattr(config, name)) for name in (*named, "chunk")]
    return [(config.granularity, value) for value in values]


def _familiar(
    wanted: Granularity, seen: Counter[object], config: Configuration
) -> tuple[bool, int]:
    """Smallest for the granularity whose turn it is, and for values little seen."""
    return config.granularity is not wanted, sum(seen[axis] for axis in _axes(config))
