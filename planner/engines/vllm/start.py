"""Does vLLM start, and with which cache: its own sum.

    cache = utilization x device - weights - peak activation - other - CUDA graphs

The activation is the peak of the profiled step, a batch of max_num_batched_tokens without
attention, and of the sampler behind it. Two model runners differ: the second, for dense models,
samples in place and does not count CUDA graphs; the first, for most experts and for hybrids,
warms up a sampler over max_num_seqs rows of logits and subtracts an estimate of the graphs.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

from ...engine import Interval
from ...hardware.gpus import Hardware
from ...models.spec import Attention, DenseFFN, LatentAttention, ModelSpec, MoEFFN, RecurrentState
from ...models.spec_key import SpecKey
from ...units import GiB
from .block_pool import BlockPool
from .mxfp4 import padding_bytes
from .plugin import staging_bytes
from .rank import rank_spec
from .rank_weights import rank_weights
from .rules import capability_of
from .settings import ServeSettings

CUBLAS = 33_554_432
"""cuBLAS's workspace on Hopper, taken through torch's allocator."""
PROCESSORS = 132
"""Streaming multiprocessors of an H100 or H200: rows of the top-k kernel's buffer."""
MEASURED = ("H100", "H200")
"""Cards that starts were measured on, or are of one kind with; elsewhere the constants below are
an estimate."""
ROUNDED = 2**22
"""What the allocator rounds up at such a moment; 0.1 and 1.1 MB were seen."""
LATENT_PREFILL = 65_536
"""Tokens of context that latent attention unpacks at once."""
SECOND_RUNNER = ("deepseek_v2", "granitemoe", "qwen2_moe")
"""Types with experts that the second model runner takes by default."""
OTHER = Interval(int(0.227 * GiB), int(0.15 * GiB), int(0.45 * GiB))
GRAPHS = Interval(int(0.30 * GiB), int(0.05 * GiB), int(0.60 * GiB))
"""What the first runner subtracts for CUDA graphs: 0.09 to 0.53 GiB were seen."""
BESIDE = Interval(int(0.55 * GiB), int(0.15 * GiB), int(0.90 * GiB))
"""CUDA graphs of the second runner, which it takes from what the utilization leaves."""
SHARED = Interval(int(0.09 * GiB), int(0.05 * GiB), int(0.60 * GiB))
"""The same on each of several cards, with NCCL and buffers of all-reduces: 0.066 and 0.109 GiB on
two H200s. The high end is for more cards and slower links, an estimate."""
ERROR = 0.35
"""The part of the activation that the derivation may miss in models that were not run."""
PACKED_ERROR = 0.02
"""The part of packed weights that the derivation may miss."""
PLAIN_ERROR = 0.003
BUFFERS = 2**26
"""Bytes that a model's code may leave beside its tensors and tables: 0 to 61 MB were seen."""
OWN_BASE = "gemma3"
"""Types whose sliding layers turn by a base of their own."""
NONE = Interval(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Start:
    """Bytes on one card, the cache's interval, and vLLM's answers. `fits`: it starts even at the
    low end; `may_fit`: at the high end. `beside`: graphs that are not in the sum."""

    requested: int
    weights: int
    activation: Interval
    other: Interval
    graphs: Interval
    cache: Interval
    pool: BlockPool
    beside: Interval = NONE

    @property
    def fits(self) -> bool:
        return self._holds(self.cache.low)

    @property
    def may_fit(self) -> bool:
        return self._holds(self.cache.high)

    @property
    def tokens(self) -> Interval:
        """Tokens that vLLM prints as its cache's size."""
        ends = self.cache.expected, self.cache.low, self.cache.high
        return Interval(*(self.pool.tokens(end) for end in ends))

    @property
    def taken(self) -> Interval:
        """What is not cache, of the requested bytes."""
        low, high = self.requested - self.cache.high, self.requested - self.cache.low
        return Interval(self.requested - self.cache.expected, low, high)

    def of_requested(self, requested: int) -> "Start":
        """The same with so many bytes of the card: the cache alone differs."""
        more = requested - self.requested
        ends = (end + more for end in (self.cache.expected, self.cache.low, self.cache.high))
        return replace(self, requested=requested, cache=Interval(*ends))

    def _holds(self, cache: int) -> bool:
        needed = self.pool.blocks_of(self.pool.settings.max_model_len) * self.pool.block_bytes
        return 0 < needed <= cache


def start(
    spec: ModelSpec,
    hardware: Hardware,
    settings: ServeSettings,
    weights: int | None = None,
    stage: int = 0,
) -> Start:
    """vLLM's start on one card, a rank of pipeline stage `stage`; `weights`: bytes that are known
    better than rank_weights derives them.

    Raises BadInput for caches and cards that are not planned and for sizes that do not divide the
    model. The constants are Hopper's; on other cards they are an estimate (`measured_on`).
    """
    here, capability = rank_spec(spec, settings, stage), capability_of(hardware)
    pool = BlockPool.of(here, settings, capability)
    slip = 0
    if weights is None:
        weights = rank_weights(spec, settings).stages[stage] + rotary_bytes(spec)
        weights += padding_bytes(here, settings, capability)
        packed = settings.quantization or spec.quantization is not None
        slip = int(weights * (PACKED_ERROR if packed else PLAIN_ERROR)) + BUFFERS
    asked = requested(hardware, settings)
    peak = activation(here, settings)
    live = Interval(peak, int(peak * (1 - ERROR)), int(cold_activation(here, settings, peak)))
    second = second_runner(spec)
    graphs = NONE if settings.enforce_eager or second else GRAPHS
    beside = BESIDE if second and not settings.enforce_eager else NONE
    several = settings.tensor_parallel * settings.pipeline_parallel > 1 or (
        settings.data_parallel > 1 and settings.expert_parallel
    )
    other = SHARED if several else OTHER
    left = asked - weights
    cache = Interval(
        left - live.expected - other.expected - graphs.expected,
        left - slip - live.high - other.high - graphs.high,
        left - live.low - other.low - graphs.low,
    )
    return Start(asked, weights, live, other, graphs, cache, pool, beside)


def requested(hardware: Hardware, settings: ServeSettings) -> int:
    """Bytes of a card that vLLM may take."""
    return ceil(hardware.memory_bytes * settings.gpu_memory_utilization)


def measured_on(hardware: Hardware) -> bool:
    """Whether the constants were measured on such a card."""
    return any(card in hardware.name for card in MEASURED)


def second_runner(spec: ModelSpec) -> bool:
    """Whether vLLM 0.26.0 runs the model by its second model runner."""
    widths = _widths(SpecKey(spec))
    return not widths.states and (not widths.experts or spec.model_type in SECOND_RUNNER)


def activation(spec: ModelSpec, settings: ServeSettings) -> int:
    """Peak bytes of the profiled step, its compiled code at hand."""
    tokens, widths = settings.max_num_batched_tokens, _widths(SpecKey(spec))
    # gate and up beside their product, the residual, its norm and what the layer adds
    step = 2 * tokens * (3 * widths.dense + 3 * spec.hidden)
    lasting = CUBLAS + 2 * tokens * widths.buffered
    if settings.attention_backend:
        lasting += staging_bytes(spec, settings)
    if widths.unpacked:
        step = 2 * (LATENT_PREFILL * widths.unpacked + 4 * tokens * spec.hidden)
    if second_runner(spec):
        # several ranks gather their parts of the logits
        rows = min(settings.max_num_seqs, tokens) if settings.tensor_parallel > 1 else 0
        return lasting + max(step, 2 * 2 * rows * spec.vocab + 2 * tokens * spec.hidden)
    rows = min(settings.max_num_seqs, tokens)
    # logits, their float32, what top-k leaves, noise
    sampler = rows * spec.vocab * (2 + 4 + 4 + 4) + 2 * tokens * spec.hidden
    return lasting + max(step, sampler + 4 * PROCESSORS * spec.vocab)


def cold_activation(spec: ModelSpec, settings: ServeSettings, warm: int) -> int:
    """The high end. At a first start torch.compile tries kernels on a copy of the embedding
    within the profiled step, which is then counted as activation; later starts read its cache."""
    high = int(warm * (1 + ERROR))
    if settings.enforce_eager:
        return high
    copied = 2 * spec.hidden * (spec.vocab + 2 * settings.max_num_batched_tokens)
    return max(high, copied + ROUNDED)


def rotary_bytes(spec: ModelSpec) -> int:
    """The tables of sines and cosines: one for each width that turns, and one more where sliding
    layers turn by another base."""
    tables = set[tuple[int, bool]]()
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, Attention) and mixer.rope:
            own_base = spec.model_type.startswith(OWN_BASE) and mixer.window is not None
            tables.add((mixer.rotary_dim or mixer.head_dim, own_base))
        elif isinstance(mixer, LatentAttention) and mixer.rope_dim:
            tables.add((mixer.rope_dim, False))
    return 2 * (spec.max_context or 0) * sum(width for width, _ in tables)


@dataclass(frozen=True, slots=True)
class _Widths:
    """Elements of a token, of what decides the activation: the widest dense FFN, both buffers of
    a token's experts, a latent unpacked for all heads; 0 where a model has none."""

    dense: int
    buffered: int
    unpacked: int
    experts: bool
    states: bool


@lru_cache(maxsize=64)
def _widths(key: SpecKey) -> _Widths:
    spec = key.spec
    ffns = [layer.ffn for layer in spec.layers]
    mixers = [m for m, _ in spec.mixer_counts]
    routed = [ffn for ffn in ffns if isinstance(ffn, MoEFFN)]
    return _Widths(
        dense=max((ffn.width for ffn in ffns if isinstance(ffn, DenseFFN)), default=0),
        # gpt-oss's kernels need no buffers
        buffered=max((_buffered(ffn, spec.hidden) for ffn in routed), default=0)
        if spec.model_type != "gpt_oss"
        else 0,
        unpacked=max(
            (
                m.query_heads * (m.nope_dim + m.value_dim)
                for m in mixers
                if isinstance(m, LatentAttention)
            ),
            default=0,
        ),
        experts=bool(routed),
        states=any(isinstance(m, RecurrentState) for m in mixers),
    )


def _buffered(ffn: MoEFFN, hidden: int) -> int:
    """Two buffers of every token's experts."""
    first = max((2 if ffn.gated else 1) * ffn.width, hidden)
    return ffn.top_k * (first + max(ffn.width, hidden))
