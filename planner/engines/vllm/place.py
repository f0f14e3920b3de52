"""One configuration on its cards: does vLLM start, for whom has its cache room, what is typed.

fits  when, at the high end of what is not cache, every card starts with the longest sequence
      and holds the asked users at their mean length, within its share of the budget
"""

from ...engine import Interval
from ...errors import BadInput
from ...formats.configuration import Configuration
from ...models.spec import ModelSpec
from ...placement import Machine, Placement, Share
from ...serving import CardTerms, Parallel, Serving, Sizes, command_line
from ...workload import Workload
from .asked_settings import settings_of
from .command import (
    checkpoint_words,
    flags_of,
    keeps_16_bits,
    model_argument,
    own_code_notes,
)
from .layouts import layouts, with_layout
from .plugin import AWQ_NOTE, AWQ_USERS, INSTALL_NOTE, OVERLAP_NOTE, OVERLAPS
from .rank_weights import rank_weights
from .rules import capability_of, unpacked_on_the_way
from .settings import VERSION
from .sizing import SizedCard, SizedLayout, lengths_of, size_layout
from .speed import ServingSpeed, serving_speed
from .start import measured_on

MEASURED_CARDS = 2
"""Cards of one machine that starts were measured on."""


def place(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    machine: Machine,
    *,
    plugin: bool = False,
) -> Placement:
    """On the machine's cards, as they share the model best; `plugin`: with this project's
    attention. Raises BadInput as `candidates`."""
    found = candidates(spec, config, workload, machine, plugin=plugin)
    placed = [_placement(spec, workload, one) for one in found]
    return min(placed, key=lambda p: _whole_time(p, workload))


def candidates(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    machine: Machine,
    *,
    plugin: bool = False,
) -> list[SizedLayout]:
    """Layouts of which the fastest is taken: those that fit, or the one that lacks least. Raises
    BadInput for what the release refuses, and where no card is named."""
    if not machine.gpus:
        raise BadInput(
            "vLLM takes a part of a card, and no GPU is named", "name it: --gpu H100, --gpu 2x4090"
        )
    settings = settings_of(spec, config, workload, machine.gpus, plugin=plugin)
    tried: list[SizedLayout] = []
    refused: BadInput | None = None
    for layout in layouts(spec, len(machine.gpus), machine.parallel):
        if layout.data == 1 and any(one.fits for one in tried):
            continue  # the ranks that share the most fit: stages would be slower
        try:
            one = size_layout(spec, settings, layout, workload, machine)
        except BadInput as error:  # a cut through a group of packed weights
            refused = error
            continue
        tried.append(one)
        if one.fits and layout.data > 1:
            break
    if not tried:
        raise refused or BadInput(
            f"{len(machine.gpus)} cards do not share {spec.name}", "name another number of cards"
        )
    fitting = [one for one in tried if one.fits]
    if not fitting:
        return [min(tried, key=lambda one: one.needed)]
    # Replicas that share no experts may be faster; those that do have no speed that was held.
    replicas = [one for one in fitting if one.layout.data > 1 and not one.layout.experts]
    return [fitting[0], *replicas[:1]]


def _placement(spec: ModelSpec, workload: Workload, tried: SizedLayout) -> Placement:
    settings, cards = tried.settings, tried.cards
    speed = _speed(spec, workload, tried)
    serving = _serving(spec, workload, tried, speed)
    kv = sum(card.cache_needed for card in cards)
    weights = sum(card.start.weights for card in cards)
    compute = sum(
        card.start.activation.expected + card.start.graphs.expected + card.start.beside.expected
        for card in cards
    )
    overhead = sum(card.start.other.expected + card.context.expected for card in cards)
    return Placement(
        device=Share(weights, kv, compute),
        layers=len(spec.layers),
        device_layers=len(spec.layers),
        overhead=overhead,
        device_ends=(sum(card.needed[1] for card in cards), sum(card.needed[2] for card in cards)),
        kv_bytes_per_token=_growth(workload, tried),
        fits=tried.fits,
        needed=tried.needed,
        command=serving.command,
        file=serving.checkpoint,
        file_bytes=rank_weights(spec, with_layout(settings, Parallel())).whole,
        ttft=speed.ttft if speed is not None else None,
        tpot=speed.tpot if speed is not None else None,
        notes=_notes(spec, workload, tried, serving),
        serving=serving,
    )


def _growth(workload: Workload, tried: SizedLayout) -> int:
    """Bytes of all cards' caches for one further token of every sequence, blocks aside."""
    total = 0.0
    for card in tried.cards:
        pool = card.start.pool
        blocks = pool.blocks_of(workload.tokens + 4096) - pool.blocks_of(workload.tokens)
        total += blocks * pool.block_bytes / 4096 * -(-workload.batch // tried.layout.data)
    return int(total)


def _serving(
    spec: ModelSpec, workload: Workload, tried: SizedLayout, speed: ServingSpeed | None
) -> Serving:
    settings, cards, layout = tried.settings, tried.cards, tried.layout
    model = model_argument(spec, settings.quantization)
    flags = flags_of(model, settings, keeps_16_bits(spec))
    least = min(cards, key=lambda card: card.start.pool.blocks(card.start.cache.low))
    pool = least.start.pool
    blocks = pool.blocks(least.start.cache.low)
    usable = max(0, blocks - 1)
    starts = [card.start for card in cards]
    ends = [
        min(getattr(one.tokens, end) for one in starts) * layout.data
        for end in ("expected", "low", "high")
    ]
    lengths = lengths_of(workload)
    mean = pool.blocks_of_mean(lengths)
    most = spec.max_context or 2**24
    return Serving(
        version=VERSION,
        starts=all(one.fits for one in starts),
        may_start=all(one.may_fit for one in starts),
        users=workload.batch,
        max_model_len=settings.max_model_len,
        longest=min(one.pool.longest(max(0, one.cache.low), most) for one in starts),
        cache_tokens=(ends[0], ends[1], ends[2]),
        at_once_mean=int(usable / mean) * layout.data,
        at_once_worst=usable // pool.blocks_of(workload.tokens) * layout.data,
        flags=flags,
        command=command_line(("vllm", "serve"), flags),
        checkpoint=checkpoint_words(spec, settings.quantization),
        cards=tuple(_terms(card) for card in cards),
        parallel=layout,
        speed=(speed.tokens_per_second, speed.ttft_alone) if speed is not None else None,
        speed_kind=speed.kind if speed is not None else "",
        measured=all(measured_on(card.gpu) for card in cards) and len(cards) <= MEASURED_CARDS,
    )


def _terms(card: SizedCard) -> CardTerms:
    one = card.start
    return CardTerms(
        gpu=card.gpu.name,
        memory=card.gpu.memory_bytes,
        requested=one.requested,
        weights=one.weights,
        activation=_sizes(one.activation),
        other=_sizes(one.other),
        graphs=_sizes(one.graphs),
        cache=_sizes(one.cache),
        context=_sizes(card.context),
        beside=_sizes(one.beside),
    )


def _sizes(term: Interval) -> Sizes:
    return term.expected, term.low, term.high


def _speed(spec: ModelSpec, workload: Workload, tried: SizedLayout) -> ServingSpeed | None:
    """Of prompts of the mean length; None where the speed of such weights is not known."""
    card = min(tried.cards, key=lambda one: one.gpu.bandwidth)
    pool = card.start.pool
    held = (pool.blocks(card.start.cache.expected) - 1) / pool.blocks_of_mean(lengths_of(workload))
    asked = workload.batch, workload.mean_context, max(1, workload.output)
    try:
        return serving_speed(spec, tried.settings, card.gpu, *asked, at_once=max(1, int(held)))
    except BadInput:
        return None


def _notes(
    spec: ModelSpec, workload: Workload, tried: SizedLayout, serving: Serving
) -> tuple[str, ...]:
    """What a reader should know of the numbers, the most important first."""
    notes, settings, gpu = list[str](), tried.settings, tried.cards[0].gpu
    if (waiting := serving.who_waits(workload, "the cache")) is not None:
        notes.append(waiting)
    if settings.enforce_eager:
        notes.append("CUDA graphs do not fit beside it: --enforce-eager costs time in every step")
    notes += own_code_notes(spec)
    if len({card.gpu.name for card in tried.cards}) > 1 and tried.layout.data == 1:
        notes.append("cards that differ share a model evenly: the smallest decides what fits")
    names = dict.fromkeys(c.gpu.name for c in tried.cards if not measured_on(c.gpu))
    if names:
        notes.append(
            f"vLLM's workspaces and graphs on {', '.join(names)} are an estimate from an H200; the "
            "rest of the sum is its own arithmetic"
        )
    if len(tried.cards) > MEASURED_CARDS or (names and len(tried.cards) > 1):
        notes.append("buffers between cards (NCCL, all-reduces) are an estimate")
    if settings.quantization and unpacked_on_the_way(settings.quantization, gpu):
        notes.append(f"{gpu.name} unpacks {settings.quantization} weights to 16 bits to multiply")
    if settings.attention_backend:
        notes.append(INSTALL_NOTE)
        if settings.quantization == "awq" and workload.batch <= AWQ_USERS:
            notes.append(AWQ_NOTE)
        if capability_of(gpu) >= OVERLAPS and not settings.enforce_eager:
            notes.append(OVERLAP_NOTE)
    if serving.checkpoint:
        notes.append(f"it needs {serving.checkpoint}")
    return tuple(notes)


def _whole_time(placement: Placement, workload: Workload) -> float:
    if placement.ttft is None or placement.tpot is None:
        return 0.0
    return placement.ttft[0] + workload.output * placement.tpot[0]
