"""Which layers lie on which card: ranges of layers that llama.cpp is told by --tensor-split.

llama.cpp gives each card a run of layers, the head behind the last one, in the order of the cards;
--tensor-split with whole numbers that sum to all layers and the head says exactly how many. The
fastest card is filled first and slower ones take what is left; cards alike share by their size.
Where all layers are on cards and none has parts in host memory, passes of a long prompt overlap
(pipeline parallelism), and every card keeps four copies of a pass's inputs.
"""

from collections.abc import Sequence
from itertools import accumulate

from ...engine import Interval
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...placement import Share
from .parts import Parts

COPIES = 4
"""Inputs of a pass that are kept with pipeline parallelism (GGML_SCHED_MAX_COPIES)."""
PIPELINE_ERROR = 0.3
"""Of those copies: two devices of a processor's build have them and less
(profiles/llama_cpp/memory_split.jsonl), two cards were not run."""
HOST_LAYERS = 19_000_000
"""More of a card's scratch where whole layers lie in host memory: 16 and 22 MB in two runs, whose
total it is fitted to (profiles/llama_cpp/memory_cuda.jsonl)."""
ALIKE = 1.1
"""Cards whose bandwidths differ by less share layers by their size."""


@dataclass(frozen=True, slots=True)
class Split:
    """The last `layers` layers on cards, experts of the first `experts` layers not."""

    layers: int
    experts: int


@dataclass(frozen=True, slots=True)
class PlannedCard:
    """A card that layers may lie on. `index`: its place among all cards."""

    index: int
    gpu: Hardware | None
    budget: int
    overhead: Interval


@dataclass(frozen=True, slots=True)
class Filled:
    """A card with its layers [first, end). `low`, `high`: ends of all that it holds."""

    card: PlannedCard
    first: int
    end: int
    share: Share
    low: int
    high: int

    @property
    def fits(self) -> bool:
        return self.high <= self.card.budget


def fill(
    parts: Parts, split: Split, cards: Sequence[PlannedCard], unified: bool, error: float
) -> list[Filled]:
    """The layers of `split` laid over all of `cards`; whether each fits is theirs to say."""
    count = len(parts.layers)
    start = count - split.layers
    moved = [e if i < split.experts else 0 for i, e in enumerate(parts.experts)]
    sizes = [
        parts.layers[i] - moved[i] + parts.caches[i] + (parts.head if i == count - 1 else 0)
        for i in range(start, count)
    ]
    # Host weights of a long pass are multiplied on the card, in a copy of one tensor.
    copied = 0
    if start or any(moved[start:]):
        copied = max(e or w for e, w in zip(parts.experts, parts.layers, strict=True)) // 3
        copied += HOST_LAYERS if start else 0
    piped = parts.pass_inputs * (COPIES - 1) if len(cards) > 1 and not copied else 0
    slip = int(error * parts.compute) + copied + int(PIPELINE_ERROR * piped)
    buffers = parts.compute + copied + piped
    rooms = [card.budget - card.overhead.high - buffers - slip for card in cards]
    filled = []
    for card, (a, b) in zip(cards, _ranges(sizes, rooms, cards), strict=True):
        first, end = start + a, start + b
        weights = sum(parts.layers[first:end]) - sum(moved[first:end])
        if end == count:
            weights += parts.head
            if unified and not parts.tied:
                weights += parts.embedding
        share = Share(weights, sum(parts.caches[first:end]), buffers)
        less = parts.host_compute if unified else 0  # not told apart where memory is one
        low = share.total - less - slip + card.overhead.low
        filled.append(Filled(card, first, end, share, low, share.total + slip + card.overhead.high))
    return filled


def _ranges(
    sizes: Sequence[int], rooms: Sequence[int], cards: Sequence[PlannedCard]
) -> list[tuple[int, int]]:
    """[first, end) of each card: to its target, else to its room; the last takes what is left."""
    if len(cards) == 1:
        return [(0, len(sizes))]
    for wanted in (_targets(sum(sizes), rooms, cards), rooms):
        ends, at = [], 0
        for target, room in zip(wanted[:-1], rooms[:-1], strict=True):
            used = 0
            while at < len(sizes) and used + sizes[at] // 2 <= target and used + sizes[at] <= room:
                used += sizes[at]
                at += 1
            ends.append(at)
        ends.append(len(sizes))
        ranges = list(zip([0, *ends], ends, strict=False))
        if sum(sizes[ranges[-1][0] :]) <= rooms[-1]:
            break
    return ranges


def _targets(total: int, rooms: Sequence[int], cards: Sequence[PlannedCard]) -> list[int]:
    """Bytes for each card: the fastest first, alike ones by their room."""
    targets = [0] * len(cards)
    left = total
    order = sorted(range(len(cards)), key=lambda i: -bandwidth(cards[i]))
    while order and left > 0:
        fastest = bandwidth(cards[order[0]])
        alike = [i for i in order if bandwidth(cards[i]) * ALIKE >= fastest]
        order = order[len(alike) :]
        room = sum(max(0, rooms[i]) for i in alike)
        taken = min(left, room)
        for i in alike:
            targets[i] = taken * max(0, rooms[i]) // max(1, room)
        left -= taken
    return targets


def bandwidth(card: PlannedCard) -> float:
    return card.gpu.bandwidth if card.gpu is not None else 0.0


def fastest_first(cards: Sequence[PlannedCard]) -> list[tuple[PlannedCard, ...]]:
    """The fastest card, the two fastest, ..., all; each in the order of the cards."""
    order = sorted(cards, key=lambda card: -bandwidth(card))
    sets = accumulate(([card] for card in order), lambda one, more: one + more)
    return [tuple(sorted(some, key=lambda card: card.index)) for some in sets]
