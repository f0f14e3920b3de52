"""One configuration on its cards: what SGLang's pool holds, and what is typed."""

from ...engine import Interval
from ...errors import BadInput
from ...formats.configuration import Configuration
from ...hardware.compute_capability import compute_capability
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...memory.overhead import driver_context
from ...models.spec import ModelSpec
from ...placement import Machine, Placement, Share
from ...serving import CardTerms, Flags, Parallel, Serving, Sizes, command_line
from ...units import GiB
from ...workload import Workload
from ..vllm.asked_settings import cache_dtype, run_dtype, weight_name
from ..vllm.command import checkpoint_words, model_argument, own_code_notes
from ..vllm.layouts import layouts, with_layout
from ..vllm.rank import rank_spec
from ..vllm.rank_weights import rank_weights
from ..vllm.settings import ServeSettings
from .pool import AFTER_CAPTURE, OTHER, VERSION, bytes_per_token, reserve

PROGRAM = ("python", "-m", "sglang.launch_server")
WEIGHT_ERROR = 0.02
"""Part of a rank's weights that may lie beside them: no start of SGLang was held to its shapes."""
FP8_WEIGHTS = (8, 0)
"""Fp8Config.get_min_capability."""
NONE: Sizes = (0, 0, 0)
UNHELD = (
    "SGLang 0.5.23 was read, not run: its pool's arithmetic is held to published logs, what is "
    "resident beside the weights is an estimate, and seconds are not predicted"
)


@dataclass(frozen=True, slots=True)
class _Card:
    """A card: the bytes free before the model is loaded, its weights, its pool. What a budget
    below the card's memory leaves unasked for is none of them."""

    gpu: Hardware
    budget: int
    free: int
    kept: int
    """Bytes of activations and graphs, which the fraction leaves free."""
    fraction: float
    weights: int
    pool: Sizes
    token: int
    needed: Sizes


@dataclass(frozen=True, slots=True)
class _Layout:
    parallel: Parallel
    settings: ServeSettings
    cards: tuple[_Card, ...]
    tokens: int
    """Tokens of the pool that one replica needs."""

    @property
    def fits(self) -> bool:
        return all(
            c.pool[1] >= self.tokens * c.token and c.needed[2] <= c.budget for c in self.cards
        )

    @property
    def needed(self) -> int:
        total = sum(card.needed[2] for card in self.cards)
        if self.fits:
            return total
        # A fraction is a thousandth too small at worst.
        lack = max((card.needed[2] + card.free // 1000) / card.budget for card in self.cards)
        budget = sum(card.budget for card in self.cards)
        return max(total, budget + 1, int(budget * min(lack, 1e6)))


def place(
    spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
) -> Placement:
    """On the machine's cards. Raises BadInput for what the release refuses or nothing here plans,
    and where no card is named."""
    if not machine.gpus:
        raise BadInput("SGLang takes a part of a card, and no GPU is named", "name it: --gpu H100")
    name, dtype = weight_name(spec, config), cache_dtype(config)
    if dtype not in ("auto", "fp8"):
        raise BadInput(
            f"SGLang's cache as {dtype} is not planned", "auto and fp8 are: k16v16, kfp8vfp8"
        )
    stored = spec.quantization.method if spec.quantization is not None else ""
    for gpu in dict.fromkeys(machine.gpus):
        _check_card(gpu, dtype, name or stored)
    if spec.max_context is not None and workload.tokens > spec.max_context:
        raise BadInput(
            f"SGLang refuses --context-length {workload.tokens}: the model was made for "
            f"{spec.max_context:,} tokens",
            f"--context {max(1, spec.max_context - workload.output)} or less",
        )
    chunk = config.chunk or 4096
    batch, runs = workload.batch, run_dtype(spec)
    settings = ServeSettings(workload.tokens, dtype, chunk, batch, quantization=name, dtype=runs)
    tried, refused = [], None
    for layout in layouts(spec, len(machine.gpus), machine.parallel):
        try:
            tried.append(_sized(spec, with_layout(settings, layout), layout, workload, machine))
        except BadInput as error:
            refused = error
    if not tried:
        raise refused or BadInput(
            f"{len(machine.gpus)} cards do not share {spec.name}", "name another number of cards"
        )
    fitting = [one for one in tried if one.fits]
    chosen = fitting[0] if fitting else min(tried, key=lambda one: one.needed)
    return _placement(spec, workload, chosen)


def fp8_obstacle(gpu: Hardware) -> str | None:
    """Why a card has no fp8 cache."""
    capability = compute_capability(gpu)
    if capability is not None and capability < (8, 9):
        return f"an fp8 cache needs compute capability 8.9, not {capability[0]}.{capability[1]}"
    return None


def _check_card(gpu: Hardware, dtype: str, weights: str) -> None:
    capability = compute_capability(gpu)
    if capability is None or capability < (7, 5):
        raise BadInput(f"SGLang on {gpu.name} is not planned", "NVIDIA cards from Turing on are")
    if weights == "fp8" and capability < FP8_WEIGHTS:
        raise BadInput(
            f"SGLang {VERSION} on {gpu.name}: fp8 weights need compute capability "
            f"{FP8_WEIGHTS[0]}.{FP8_WEIGHTS[1]}, not {capability[0]}.{capability[1]}",
            "choose another format",
        )
    if dtype == "fp8" and (obstacle := fp8_obstacle(gpu)) is not None:
        raise BadInput(f"SGLang {VERSION} on {gpu.name}: {obstacle}", "choose another format")


def _sized(
    spec: ModelSpec,
    settings: ServeSettings,
    layout: Parallel,
    workload: Workload,
    machine: Machine,
) -> _Layout:
    each = -(-workload.batch // layout.data)
    mean = sum(part * (prompt + workload.output) for prompt, part in workload.prompts)
    tokens = max(workload.tokens, -int(-each * mean // 1)) + each
    stages = rank_weights(spec, settings).stages
    cards = []
    for i, (gpu, budget) in enumerate(zip(machine.gpus, machine.budgets, strict=True)):
        stage = i // layout.tensor % layout.pipeline
        token = bytes_per_token(rank_spec(spec, settings, stage), settings.kv_cache_dtype)
        context = driver_context(gpu)
        budget = min(budget, gpu.memory_bytes)
        free = gpu.memory_bytes - context.expected
        kept = reserve(spec, gpu, settings.max_num_batched_tokens, layout.cards)
        # A budget below the card's memory is held by a smaller fraction.
        static = min(free, budget - context.high) - kept
        fraction = max(0.01, int(static / free * 1000) / 1000)
        weights = stages[stage]
        budgeted = int(free * fraction)
        ends = (
            budgeted - weights - OTHER.expected,
            budgeted - int(weights * (1 + WEIGHT_ERROR)) - OTHER.high - AFTER_CAPTURE,
            budgeted - weights - OTHER.low,
        )
        pool = ends[0], max(0, ends[1]), ends[2]
        used = tokens * token + kept
        needed = (
            context.expected + weights + OTHER.expected + used,
            context.low + weights + OTHER.low + used,
            context.high + int(weights * (1 + WEIGHT_ERROR)) + OTHER.high + AFTER_CAPTURE + used,
        )
        cards.append(_Card(gpu, budget, free, kept, fraction, weights, pool, token, needed))
    return _Layout(layout, settings, tuple(cards), tokens)


def _flags(spec: ModelSpec, workload: Workload, chosen: _Layout) -> Flags:
    settings, layout = chosen.settings, chosen.parallel
    each = -(-workload.batch // layout.data)
    fraction = min(card.fraction for card in chosen.cards)
    # Replicas that share experts are one group of tensor parallel ranks, whose attention alone is
    # replicated; it divides the chunk and the requests among them.
    shared = layout.data if layout.experts else 1
    ranks = layout.tensor * shared
    fields: list[tuple[str, str | int | float | bool]] = [
        ("model_path", model_argument(spec, settings.quantization)),
        ("context_length", settings.max_model_len),
        ("kv_cache_dtype", "fp8_e4m3" if settings.kv_cache_dtype == "fp8" else "auto"),
        ("chunked_prefill_size", settings.max_num_batched_tokens * shared),
        ("max_running_requests", each * shared),
        ("mem_fraction_static", fraction),
    ]
    if settings.dtype != "auto":
        fields.append(("dtype", settings.dtype))
    sizes = (("tp", ranks), ("pp", layout.pipeline), ("dp", layout.data))
    fields += [(f"{name}_size", size) for name, size in sizes if size > 1]
    if shared > 1:
        fields.append(("enable_dp_attention", True))
    if layout.experts:
        fields.append(("ep_size", ranks))
    if settings.quantization == "fp8":
        fields.append(("quantization", "fp8"))
    return tuple(fields)


def _placement(spec: ModelSpec, workload: Workload, chosen: _Layout) -> Placement:
    settings, cards, layout = chosen.settings, chosen.cards, chosen.parallel
    flags = _flags(spec, workload, chosen)
    held = [max(0, min(c.pool[end] // c.token for c in cards)) for end in (0, 1, 2)]
    mean = sum(part * (prompt + workload.output) for prompt, part in workload.prompts)
    serving = Serving(
        version=VERSION,
        starts=held[1] > 0,
        may_start=held[2] > 0,
        users=workload.batch,
        max_model_len=settings.max_model_len,
        longest=min(held[1], spec.max_context or 2**24),
        cache_tokens=(held[0] * layout.data, held[1] * layout.data, held[2] * layout.data),
        at_once_mean=int(held[1] / mean) * layout.data,
        at_once_worst=held[1] // workload.tokens * layout.data,
        flags=flags,
        command=command_line(PROGRAM, flags, first=""),
        checkpoint=checkpoint_words(spec, settings.quantization),
        cards=tuple(_terms(card) for card in cards),
        parallel=layout,
    )
    kv = chosen.tokens * sum(card.token for card in cards)
    weights = sum(card.weights for card in cards)
    compute = sum(card.kept for card in cards)
    notes = [UNHELD]
    if (waiting := serving.who_waits(workload, "the pool")) is not None:
        notes.append(waiting)
    if serving.checkpoint:
        notes.append(f"it needs {serving.checkpoint}")
    notes += own_code_notes(spec)
    overhead = sum(card.needed[0] - card.weights - kv // len(cards) for card in cards) - compute
    return Placement(
        device=Share(weights, kv, compute),
        layers=len(spec.layers),
        device_layers=len(spec.layers),
        overhead=max(0, overhead),
        device_ends=(sum(card.needed[1] for card in cards), sum(card.needed[2] for card in cards)),
        kv_bytes_per_token=-(-workload.batch // layout.data) * sum(card.token for card in cards),
        fits=chosen.fits,
        needed=chosen.needed,
        command=serving.command,
        file=serving.checkpoint,
        file_bytes=rank_weights(spec, with_layout(settings, Parallel())).whole,
        notes=tuple(notes),
        serving=serving,
    )


def _terms(card: _Card) -> CardTerms:
    requested = int(card.free * card.fraction)
    context = driver_context(card.gpu)
    return CardTerms(
        gpu=card.gpu.name,
        memory=card.gpu.memory_bytes,
        requested=requested,
        weights=card.weights,
        activation=NONE,
        other=_sizes(OTHER),
        graphs=NONE,
        cache=card.pool,
        context=_sizes(context),
        beside=(card.kept, min(card.kept, GiB), card.kept),
    )


def _sizes(term: Interval) -> Sizes:
    return term.expected, term.low, term.high
