"""Seconds of llama.cpp from bandwidths and rates, and from runs on one H200.

Decoding reads every active weight and the whole cache once a token, each from where it lies, and
starts its kernels layer by layer. Prefill multiplies: on a card at a part of its dense rate;
weights that lie in host memory are copied over the link once for every micro-batch (--op-offload),
or multiplied by the processor where there is no card. Cards work one after the other.

One stream of tokens does not fill a card of a data centre: what the runs reached there
(profiles/llama_cpp/memory_cuda.jsonl) is the most that is expected of any card. Intervals hold what
people report for cards and boards from small to large; `kvpareto verify` says more of a machine.
"""

from functools import lru_cache

from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...models.spec import Attention, LatentAttention, ModelSpec, MoEFFN, Part, Role
from ...placement import Ends
from .parts import SpecKey

# Expected, least and most; times take the most for their low end.
DEVICE_STREAM: Ends = (0.70, 0.45, 0.90)
"""Of a card's bandwidth, in decoding."""
STREAM_MOST: Ends = (1.1e12, 0.6e12, 2.6e12)
"""Bytes a second of one stream on any card; expected as on the H200."""
DEVICE_MATMUL: Ends = (0.50, 0.12, 0.90)
"""Of its dense 16-bit rate, in prefill."""
MATMUL_MOST: Ends = (206e12, 100e12, 450e12)
"""Operations a second of a micro-batch on any card; expected as on the H200."""
HOST_BANDWIDTH: Ends = (45e9, 18e9, 90e9)
"""Bytes a second that a desktop's processor reads: two channels of DDR4 or DDR5."""
HOST_FLOPS: Ends = (0.35e12, 0.06e12, 1.6e12)
"""Operations a second of a desktop's processor on quantized weights."""
LINK: Ends = (18e9, 6e9, 50e9)
"""Bytes a second over PCIe 3.0 x16 to 5.0 x16."""
LAYER: Ends = (50e-6, 100e-6, 20e-6)
"""Seconds of a layer's kernels in a decode step that no bytes explain."""
EXPERT_LAYER: Ends = (113e-6, 200e-6, 40e-6)
"""The same of layers with experts."""
PASS_LAYER: Ends = (105e-6, 900e-6, 40e-6)
"""Seconds of a layer of a pass that no operations explain."""
PASS_STREAM: Ends = (0.197e12, 0.1e12, 2.6e12)
"""Bytes a second at which every pass of a prompt reads its weights, beside its operations: short
prompts of large models take longer than their operations."""
PASS_SHARE: Ends = (0.45, 0.25, 0.9)
"""At most this of a card's bandwidth."""


@dataclass(frozen=True, slots=True)
class CardLoad:
    """What a card reads for a token: bytes of active weights, and of the cache."""

    hardware: Hardware | None
    weights: float
    kv: float
    layers: int


@dataclass(frozen=True, slots=True)
class Load:
    """What a token moves and computes, on each card and in host memory."""

    cards: tuple[CardLoad, ...]
    host_weights: float
    host_kv: float
    host_all: float
    """All weights in host memory that belong to layers, active or not."""
    routed: bool
    """Whether layers have experts."""


def seconds(
    spec: ModelSpec, load: Load, context: int, micro_batch: int, batch: int
) -> tuple[Ends, Ends]:
    """(TTFT, TPOT), each expected, low and high, for prompts of `context` tokens in `batch`
    sequences at once. Every card of the load is named."""
    at_ends = [_at(spec, load, context, micro_batch, batch, end) for end in (0, 2, 1)]
    ttft, tpot = zip(*at_ends, strict=True)
    return ttft, tpot


def _at(
    spec: ModelSpec, load: Load, context: int, micro_batch: int, batch: int, end: int
) -> tuple[float, float]:
    tokens = context * batch
    active, scores = _work(SpecKey(spec), context)
    work = 2 * active * tokens + scores * batch
    host_read = (load.host_weights + load.host_kv) / HOST_BANDWIDTH[end]
    if not load.cards:
        return work / HOST_FLOPS[end], host_read
    passes = max(1, -(-tokens // micro_batch))
    layer = (EXPERT_LAYER if load.routed else LAYER)[end]
    layers = max(1, sum(card.layers for card in load.cards))
    ttft, tpot = 0.0, host_read
    for card in load.cards:
        assert card.hardware is not None
        rate = min(DEVICE_MATMUL[end] * card.hardware.fp16_flops, MATMUL_MOST[end])
        # Layers in host memory are multiplied on the card too, in copies.
        ttft += work * max(card.layers, 1 / len(load.cards)) / layers / rate
        read = min(PASS_STREAM[end], PASS_SHARE[end] * card.hardware.bandwidth)
        ttft += passes * (card.layers * PASS_LAYER[end] + card.weights / read)
        stream = min(DEVICE_STREAM[end] * card.hardware.bandwidth, STREAM_MOST[end])
        tpot += (card.weights + card.kv) / stream + layer * card.layers
    unified = load.cards[0].hardware is not None and load.cards[0].hardware.unified
    link = HOST_BANDWIDTH[end] if unified else min(HOST_BANDWIDTH[end], LINK[end])
    return ttft + passes * load.host_all / link + tpot, tpot


@lru_cache(maxsize=64)
def _work(key: SpecKey, context: int) -> tuple[float, float]:
    """Active parameters, and operations of attention over a prompt."""
    return active_parameters(key.spec), _attention_work(key.spec, context)


def active_parameters(spec: ModelSpec) -> float:
    """Parameters of matrix products that one token goes through, the head aside."""
    experts = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    share = experts[0].top_k / experts[0].experts if experts else 1.0
    total = 0.0
    for group in spec.tensors:
        if group.part is Part.TEXT and group.role in (Role.LINEAR, Role.EXPERT):
            total += group.parameters * (share if group.role is Role.EXPERT else 1.0)
    return total


def _attention_work(spec: ModelSpec, context: int) -> float:
    """Operations of causal attention over `context` tokens."""
    work = 0.0
    for mixer, count in spec.mixer_counts:
        if isinstance(mixer, Attention):
            seen = min(context, mixer.window or context)
            width = mixer.head_dim + mixer.value_dim
            work += count * 2.0 * mixer.query_heads * width * seen * (context - seen / 2)
        elif isinstance(mixer, LatentAttention):
            width = 2 * mixer.kv_rank + mixer.rope_dim
            work += count * mixer.query_heads * width * float(context) ** 2
    return work
