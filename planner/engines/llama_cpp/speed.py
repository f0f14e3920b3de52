"""Seconds of llama.cpp from bandwidths and rates: derived, not fitted, and so wide.

Decoding reads every active weight and the whole cache once a token, each from where it lies.
Prefill multiplies: on the device at a part of its dense rate; weights that lie in host memory are
copied over the link once for every micro-batch (--op-offload), or multiplied by the processor
where there is no device. An interval holds what people report for cards and boards from small to
large; a machine that is measured says more (`kvpareto verify`).
"""

from functools import lru_cache

from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...models.spec import Attention, LatentAttention, ModelSpec, MoEFFN, Part, Role
from ...placement import Ends
from .parts import SpecKey

# Expected, least and most; times take the most for their low end.
DEVICE_STREAM: Ends = (0.70, 0.45, 0.90)
"""Of a device's bandwidth, in decoding."""
DEVICE_MATMUL: Ends = (0.50, 0.12, 0.90)
"""Of its dense 16-bit rate, in prefill."""
HOST_BANDWIDTH: Ends = (45e9, 18e9, 90e9)
"""Bytes a second that a desktop's processor reads: two channels of DDR4 or DDR5."""
HOST_FLOPS: Ends = (0.35e12, 0.06e12, 1.6e12)
"""Operations a second of a desktop's processor on quantized weights."""
LINK: Ends = (18e9, 6e9, 50e9)
"""Bytes a second over PCIe 3.0 x16 to 5.0 x16."""
LAUNCH: Ends = (6e-6, 2e-6, 15e-6)
"""Seconds for each kernel of a decode step that is not hidden."""
KERNELS_A_LAYER = 14


@dataclass(frozen=True, slots=True)
class Load:
    """What a token moves and computes. Bytes of active weights and of the cache on each side."""

    device_weights: float
    host_weights: float
    device_kv: float
    host_kv: float
    host_all: float
    """All weights in host memory that belong to layers, active or not."""
    layers: int


def seconds(
    spec: ModelSpec,
    load: Load,
    hardware: Hardware | None,
    context: int,
    micro_batch: int,
    batch: int,
) -> tuple[Ends, Ends]:
    """(TTFT, TPOT), each expected, low and high, for prompts of `context` tokens in `batch`
    sequences at once."""
    at_ends = [_at(spec, load, hardware, context, micro_batch, batch, end) for end in (0, 2, 1)]
    ttft, tpot = zip(*at_ends, strict=True)
    return ttft, tpot


def _at(
    spec: ModelSpec,
    load: Load,
    hardware: Hardware | None,
    context: int,
    micro_batch: int,
    batch: int,
    end: int,
) -> tuple[float, float]:
    tokens = context * batch
    active, scores = _work(SpecKey(spec), context)
    work = 2 * active * tokens + scores * batch
    host_read = (load.host_weights + load.host_kv) / HOST_BANDWIDTH[end]
    if hardware is None:
        return work / HOST_FLOPS[end], host_read
    passes = max(1, -(-tokens // micro_batch))
    link = min(HOST_BANDWIDTH[end], LINK[end]) if not hardware.unified else HOST_BANDWIDTH[end]
    ttft = work / (DEVICE_MATMUL[end] * hardware.fp16_flops) + passes * load.host_all / link
    rate = DEVICE_STREAM[end] * hardware.bandwidth
    tpot = (load.device_weights + load.device_kv) / rate + host_read
    tpot += LAUNCH[2 if end == 1 else 1 if end == 2 else 0] * KERNELS_A_LAYER * load.layers
    return ttft + tpot, tpot


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
