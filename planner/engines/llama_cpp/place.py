"""What goes where: all on cards, experts or layers in host memory, or all on the processor.

llama.cpp puts the last -ngl layers on cards, the head counting as one, and a layer's cache beside
its weights; with --n-cpu-moe N the experts of the first N layers stay in host memory. The token
table is always looked up there. Experts are moved first: a token reads few of them, and attention
stays where the cache is. Of several cards the fastest that hold the model are used (cards.py).
"""

from bisect import bisect_left
from collections.abc import Sequence

from ...engine import Interval
from ...formats.configuration import Configuration
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...models.spec import ModelSpec, MoEFFN
from ...placement import CardShare, Machine, Placement, Share
from ...workload import Workload
from .cache_bytes import growth
from .card_overhead import card_overhead
from .cards import Filled, PlannedCard, Split, fastest_first, fill
from .command import (
    command_flags,
    command_line,
    file_address,
    file_name,
    file_repository,
    file_words,
    modelfile,
    original_notes,
)
from .parts import Parts, known_graph, new_on_cards, parts_of, run_settings, weight_name
from .speed import CardLoad, Load, seconds

HOST_PROCESS = Interval(80_000_000, 20_000_000, 150_000_000)
"""Bytes of the process beside buffers: code, vocabulary, graphs. Runs of the library, Python
included, are within it (profiles/llama_cpp/memory_process.jsonl); a server's were not measured."""
GRAPH_ERROR, CARD_ERROR, UNKNOWN_GRAPH_ERROR = 0.02, 0.1, 0.5
"""Parts of the compute buffer: the worst where shapes are held to runs, where those were all on a
processor and a card is asked for, and where there are none."""

FAST = {("f16", "f16"), ("bf16", "bf16"), ("q8_0", "q8_0"), ("q4_0", "q4_0")}
"""Pairs of K and V that CUDA builds have kernels for by default (GGML_CUDA_FA_QUANTS)."""


def place(
    spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
) -> Placement:
    """Within the budgets of cards (none: there is no card) and of host memory (None: nobody said,
    and layers stay on cards). Raises BadInput for formats it does not have."""
    gpu = machine.gpu
    unified = gpu is not None and gpu.unified
    cuda = bool(machine.budgets) and not unified
    parts = parts_of(spec, config, workload, cuda)
    run = run_settings(spec, config, workload)
    gpus = machine.gpus or (None,) * len(machine.budgets)
    cards = tuple(
        PlannedCard(i, gpu, budget, card_overhead(spec, run, parts.wide, gpu))
        for i, (gpu, budget) in enumerate(zip(gpus, machine.budgets, strict=True))
    )
    ask = _Ask(
        spec, config, workload, parts, cards, machine.ram, unified, _graph_error(spec, bool(cards))
    )
    if not cards:
        return _finished(ask, Split(0, 0), _on_host(ask))
    whole = Split(len(parts.layers), 0)
    for some in fastest_first(cards):
        sized = _sized(ask, whole, some)
        if sized.fits:
            return _finished(ask, whole, sized)
    if machine.ram is None:
        return _finished(ask, whole, sized)
    splits = _fewer(parts)
    # Each has less on the cards than the one before it, and more in host memory.
    first = bisect_left(splits, True, key=lambda s: _sized(ask, s, cards).on_cards)
    chosen = splits[min(first, len(splits) - 1)]
    best = _sized(ask, chosen, cards)
    if not best.fits:
        # The cards must hold what host memory cannot, in whole layers; unified memory is one.
        every = [whole, *([] if unified else splits)]
        beyond = bisect_left(every, True, key=lambda s: not _sized(ask, s, cards).on_host)
        least = _sized(ask, every[max(0, beyond - 1)], cards).high
        best.needed = max(sum(machine.budgets) + 1, least)
    return _finished(ask, chosen, best)


@dataclass(frozen=True, slots=True)
class _Ask:
    """The arguments of place(), the parts, and the graph's part of error."""

    spec: ModelSpec
    config: Configuration
    workload: Workload
    parts: Parts
    cards: tuple[PlannedCard, ...]
    ram: int | None
    unified: bool
    error: float


@dataclass(slots=True)
class _Sized:
    """A split's bytes; `low`, `high`: ends of the cards' total, or of the host's alone."""

    filled: list[Filled]
    host: Share
    low: int
    high: int
    overhead: int
    on_cards: bool
    """Whether every card holds what it is given."""
    on_host: bool
    """Whether host memory holds the rest."""
    fits: bool
    needed: int


def _graph_error(spec: ModelSpec, on_card: bool) -> float:
    if not known_graph(spec):
        return UNKNOWN_GRAPH_ERROR
    return CARD_ERROR if on_card and new_on_cards(spec) else GRAPH_ERROR


def _fewer(parts: Parts) -> list[Split]:
    """Ever less on the cards: experts first, if there are any, then whole layers."""
    layers = len(parts.layers)
    moved = [i + 1 for i in range(layers) if parts.experts[i]]
    experts = [Split(layers, count) for count in moved]
    every = moved[-1] if moved else 0
    return [*experts, *(Split(count, every) for count in range(layers - 1, -1, -1))]


def _on_host(ask: _Ask) -> _Sized:
    parts = ask.parts
    host = Share(parts.weights, sum(parts.caches), parts.compute + parts.output)
    error = int(ask.error * parts.compute)
    low, high = host.total + HOST_PROCESS.low - error, host.total + HOST_PROCESS.high + error
    fits = ask.ram is None or high <= ask.ram
    return _Sized([], host, low, high, HOST_PROCESS.expected, True, fits, fits, high)


def _sized(ask: _Ask, split: Split, cards: Sequence[PlannedCard]) -> _Sized:
    parts = ask.parts
    filled = fill(parts, split, cards, ask.unified, ask.error)
    first = len(parts.layers) - split.layers
    moved = sum(parts.experts[first : max(first, split.experts)])
    host = Share(
        parts.embedding + sum(parts.layers[:first]) + moved,
        sum(parts.caches[:first]),
        parts.host_compute + parts.output + (parts.compute if first else 0),
    )
    on_cards = all(one.fits for one in filled)
    on_host = ask.ram is None or ask.unified or host.total + HOST_PROCESS.high <= ask.ram
    high = sum(one.high for one in filled)
    needed = high if on_cards else max(high, sum(card.budget for card in ask.cards) + 1)
    overhead = sum(card.overhead.expected for card in cards)
    low = sum(one.low for one in filled)
    fits = on_cards and on_host
    return _Sized(filled, host, low, high, overhead, on_cards, on_host, fits, needed)


def _finished(ask: _Ask, split: Split, sized: _Sized) -> Placement:
    """The placement of a split: its seconds, its flags, and what to know of it."""
    spec, parts, workload = ask.spec, ask.parts, ask.workload
    run = run_settings(spec, ask.config, workload)
    count = len(parts.layers)
    hardware = ask.cards[0].gpu if ask.cards else None
    load = _load(spec, parts, split, sized.filled)
    timed = hardware is not None or not ask.cards
    ttft, tpot = (
        seconds(spec, load, workload.context, run.micro_batch, workload.batch)
        if timed
        else (None, None)
    )
    mix = weight_name(spec, ask.config)
    flags = command_flags(
        run,
        file_name(spec, mix),
        split.layers if ask.cards else None,
        split.experts,
        _card_flags(ask, sized.filled),
    )
    shares = [one.share for one in sized.filled]
    return Placement(
        device=Share(*(sum(getattr(s, n) for s in shares) for n in ("weights", "kv", "compute"))),
        host=sized.host,
        layers=count,
        device_layers=split.layers if ask.cards else 0,
        host_experts=split.experts,
        overhead=sized.overhead,
        device_ends=(sized.low, sized.high),
        kv_bytes_per_token=growth(spec, run),
        fits=sized.fits,
        needed=sized.needed,
        command=command_line(flags),
        flags=flags,
        file=file_words(spec, mix),
        file_bytes=parts.file,
        file_address=file_address(spec, mix),
        file_repository=file_repository(spec, mix),
        ttft=ttft,
        tpot=tpot,
        notes=_notes(ask, run.keys, run.values, hardware, len(sized.filled)),
        ollama=tuple(modelfile(flags).items()),
        cards=tuple(_card_share(one) for one in sized.filled),
    )


def _card_share(one: Filled) -> CardShare:
    gpu = one.card.gpu
    return CardShare(
        gpu=gpu.name if gpu is not None else None,
        index=one.card.index,
        layers=one.end - one.first,
        share=one.share,
        overhead=one.card.overhead.expected,
        ends=(one.low, one.high),
        budget=one.card.budget,
    )


def _card_flags(ask: _Ask, filled: Sequence[Filled]) -> list[tuple[str, str | None]]:
    """Which of several cards, and how many layers each; the head counts as one."""
    flags: list[tuple[str, str | None]] = []
    if 0 < len(filled) < len(ask.cards):
        flags.append(("-dev", ",".join(f"CUDA{one.card.index}" for one in filled)))
    if len(filled) > 1:
        counts = [one.end - one.first for one in filled]
        counts[-1] += 1
        flags.append(("-ts", ",".join(map(str, counts))))
    return flags


def _load(spec: ModelSpec, parts: Parts, split: Split, filled: Sequence[Filled]) -> Load:
    experts = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    share = experts[0].top_k / experts[0].experts if experts else 1.0
    first = len(parts.layers) - split.layers
    on_card = [0.0] * len(parts.layers)
    in_host = moved = 0.0
    for index, (size, routed) in enumerate(zip(parts.layers, parts.experts, strict=True)):
        plain, active = size - routed, routed * share
        if index < first:
            in_host += plain + active
            moved += size
        elif index < split.experts:
            on_card[index] = plain
            in_host += active
            moved += routed
        else:
            on_card[index] = plain + active
    if not filled:
        in_host += parts.head
    cards = tuple(
        CardLoad(
            hardware=one.card.gpu,
            weights=sum(on_card[one.first : one.end]) + (parts.head if one is filled[-1] else 0),
            kv=one.share.kv,
            layers=one.end - one.first,
        )
        for one in filled
    )
    return Load(cards, in_host, sum(parts.caches[:first]), moved, bool(experts))


def _notes(
    ask: _Ask, keys: str, values: str, hardware: Hardware | None, used: int
) -> tuple[str, ...]:
    spec, parts = ask.spec, ask.parts
    notes = [*original_notes(spec)]
    if not ask.cards:
        notes.append(
            "llama-server may keep earlier prompts' caches beside this, up to 8 GiB unless "
            "--cache-ram says otherwise: they are not counted"
        )
    if len(ask.cards) > 1:
        notes.append(
            "cards are numbered as --gpu names them: CUDA0 is the first (CUDA_VISIBLE_DEVICES "
            "changes their order)"
        )
    if used > 1:
        notes.append("no run on several cards is behind the copies that a pipeline keeps")
    if parts.derived:
        notes.append("bytes of weights are derived from llama-quantize's rule, not from a file")
    if not known_graph(spec):
        notes.append(
            f"llama.cpp's buffers for {spec.decoder_type} are derived from graphs "
            "of other models: no run was held against them"
        )
    if hardware is not None and hardware.vendor == "nvidia" and (keys, values) not in FAST:
        notes.append(
            f"CUDA builds decode with K {keys} and V {values} by a slower path, unless they are "
            f'made with -DGGML_CUDA_FA_QUANTS="{keys}-{values}" (older: GGML_CUDA_FA_ALL_QUANTS=ON)'
        )
    notes.append("seconds are derived from bandwidths and runs on one H200: another card's differ")
    return tuple(notes)
