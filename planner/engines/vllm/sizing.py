"""A layout on its cards: the utilization, every card's start, and the bytes that it needs.

The utilization is the engine's default, or as much more as the card's real memory leaves beside
the driver's context and the graphs; a smaller budget makes it smaller.
"""

from dataclasses import replace
from math import ceil, floor

from ...engine import Interval
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...memory.overhead import driver_context
from ...models.spec import ModelSpec
from ...placement import Machine
from ...serving import Parallel, Sizes
from ...workload import Workload
from .layouts import with_layout
from .rank_weights import alike_stages
from .settings import ServeSettings
from .start import Start, requested, start

UTILIZATION = 0.92
"""vLLM's default."""
MOST = 0.97
"""Of a card's memory; the rest is fragments and what libraries take late."""
LEAST = 0.01
"""What is asked for where nothing fits: a utilization of 0 is none to vLLM."""
STEP = 0.001
"""In which a utilization is typed."""


@dataclass(frozen=True, slots=True)
class SizedCard:
    """A card with its start and the bytes that it needs at the high end."""

    gpu: Hardware
    budget: int
    start: Start
    context: Interval
    needed: Sizes
    """Bytes of the device for what was asked: expected, low, high."""
    cache_needed: int

    @property
    def fits(self) -> bool:
        start = self.start
        room = start.cache.low >= self.cache_needed and start.fits
        return room and self.needed[2] <= self.budget

    @property
    def enough(self) -> int:
        """Bytes that would do, of a budget or, where the most of the card holds too little, of a
        larger card. A utilization is a step too small at worst."""
        memory, inside = self.gpu.memory_bytes, self.start.taken.high + self.cache_needed
        larger = inside / MOST if inside > MOST * memory else 0
        return ceil(max(larger, self.needed[2] + STEP * memory))


@dataclass(frozen=True, slots=True)
class SizedLayout:
    """A layout with the settings that go with it."""

    layout: Parallel
    settings: ServeSettings
    cards: tuple[SizedCard, ...]

    @property
    def fits(self) -> bool:
        return all(card.fits for card in self.cards)

    @property
    def needed(self) -> int:
        """Bytes that all cards together must have; more than the budget where one lacks some."""
        total = sum(card.needed[2] for card in self.cards)
        if self.fits:
            return total
        budget = sum(card.budget for card in self.cards)
        lack = max(card.enough / card.budget for card in self.cards)
        return max(total, budget + 1, int(budget * min(lack, 1e6)))


def size_layout(
    spec: ModelSpec,
    settings: ServeSettings,
    layout: Parallel,
    workload: Workload,
    machine: Machine,
) -> SizedLayout:
    """With CUDA graphs, or without where only that fits."""
    each = -(-workload.batch // layout.data)
    shared = with_layout(replace(settings, max_num_seqs=each), layout)
    first = _sized(spec, shared, layout, workload, machine)
    if first.fits:
        return first
    eager = _sized(spec, replace(shared, enforce_eager=True), layout, workload, machine)
    return eager if eager.fits or eager.needed <= first.needed else first


def _sized(
    spec: ModelSpec,
    settings: ServeSettings,
    layout: Parallel,
    workload: Workload,
    machine: Machine,
) -> SizedLayout:
    """The largest utilization that is needed and that every card has room for."""
    full = replace(settings, gpu_memory_utilization=1.0)
    alike = alike_stages(spec, full)
    seats = [
        _Seat(gpu, alike[i // layout.tensor % layout.pipeline], min(budget, gpu.memory_bytes))
        for i, (gpu, budget) in enumerate(zip(machine.gpus, machine.budgets, strict=True))
    ]
    kinds = {seat.key: seat for seat in seats}  # cards that differ in nothing are sized once
    whole = {key: start(spec, seat.gpu, full, stage=seat.stage) for key, seat in kinds.items()}
    most, wanted = MOST, LEAST
    for key, seat in kinds.items():
        one, memory = whole[key], seat.gpu.memory_bytes
        most = min(most, (seat.budget - seat.context.high - one.beside.high) / memory)
        wanted = max(wanted, (one.taken.high + cache_needed(one, settings, workload)) / memory)
    # No more than the default where that is enough; more where it is not, as far as there is room.
    # It is typed in steps: what is wanted is rounded up, what there is down.
    most = round(floor(most / STEP) * STEP, 3)
    utilization = max(LEAST, min(most, max(UTILIZATION, round(ceil(wanted / STEP) * STEP, 3))))
    settings = replace(settings, gpu_memory_utilization=utilization)
    cards = {
        key: _card(seat, whole[key].of_requested(requested(seat.gpu, settings)), settings, workload)
        for key, seat in kinds.items()
    }
    return SizedLayout(layout, settings, tuple(cards[seat.key] for seat in seats))


@dataclass(frozen=True, slots=True)
class _Seat:
    """A card in a layout: its pipeline stage, or the first like it, and the bytes of the card that
    may be used."""

    gpu: Hardware
    stage: int
    budget: int

    @property
    def key(self) -> tuple[int, int, int]:
        return id(self.gpu), self.stage, self.budget

    @property
    def context(self) -> Interval:
        return driver_context(self.gpu)


def _card(seat: _Seat, one: Start, settings: ServeSettings, workload: Workload) -> SizedCard:
    """What a started card needs for the workload."""
    cache, context, taken = cache_needed(one, settings, workload), seat.context, one.taken
    needs = (
        taken.expected + cache + context.expected + one.beside.expected,
        taken.low + cache + context.low + one.beside.low,
        taken.high + cache + context.high + one.beside.high,
    )
    return SizedCard(seat.gpu, seat.budget, one, context, needs, cache)


def cache_needed(one: Start, settings: ServeSettings, workload: Workload) -> int:
    """Bytes of cache for the longest sequence, and for a replica's users at their mean length."""
    pool = one.pool
    users = -(-workload.batch // settings.data_parallel)
    load = 1 + _ceil(users * pool.blocks_of_mean(lengths_of(workload)))
    return max(load, pool.blocks_of(settings.max_model_len)) * pool.block_bytes


def lengths_of(workload: Workload) -> list[tuple[int, float]]:
    return [(prompt + workload.output, part) for prompt, part in workload.prompts]


def _ceil(value: float) -> int:
    return -int(-value // 1)
