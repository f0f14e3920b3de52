"""Seconds of vLLM's steps: a roofline whose efficiencies were fitted to runs of the engine.

    step = max(host, products + experts + attention + cache + states + the rest) + fixed

    products    max(2 x weights x rows / rate, bytes of weights / bandwidth)
    experts     the same, of the experts that the rows reach when routed at random
    attention   operations of prompts' pairs / rate; bytes of the cache that decoding reads / rate
    the rest    bytes of activations / bandwidth, a time a layer, what cards tell each other

Every rate is the datasheet's times an efficiency of profiles/vllm/speed.json. Weights, heads and
experts are shared by the cards of a tensor-parallel group; a cache has no fewer than one KV head a
card, and a latent is on each of them.
"""

from collections.abc import Mapping

import numpy as np

from ...errors import BadInput
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...memory.weights import available_weight_bits, weight_bytes
from ...models.spec import Attention, LatentAttention, ModelSpec, Part
from ...models.token_work import AttentionWork, TokenWork
from .schedule import Floats, Schedule
from .settings import ServeSettings
from .work import VllmWork, work_of

WEIGHTS = {
    "bf16": 2.0,
    "f16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "gptq8": 1.02,
    "awq": 0.531,
    "gptq4": 0.516,
    "nf4": 0.531,
    "nvfp4": 0.563,
    "mxfp4": 0.531,
}
"""Bytes of a weight of the matrix products in each format, scales included."""
CODES_MULTIPLY = {"fp8": "fp8_flops", "int8": "int8_ops"}
"""Formats whose products run at another rate than 16 bits' (activations are quantized too)."""
CACHES = {"auto": 2.0, "fp8": 1.0}
"""Bytes of an element in each cache; *_per_token_head adds four a token and head to one."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model in one format, on `cards` cards of one kind, as one card sees it."""

    spec: ModelSpec
    work: VllmWork
    settings: ServeSettings
    hardware: Hardware
    dense_bytes: float
    expert_bytes: float
    cards: int
    link: float
    """Bytes a second that an all-reduce moves at (NCCL's bus bandwidth)."""


def served(
    spec: ModelSpec,
    settings: ServeSettings,
    hardware: Hardware,
    link: float,
    weights: str | None = None,
    cards: int | None = None,
) -> Served:
    """`weights`, `cards`: where not the settings' own. Raises BadInput for weights in a format that
    has no speed here."""
    work = work_of(spec)
    weights = settings.quantization if weights is None else weights
    cards = cards or settings.tensor_parallel
    if not weights:
        dense, expert = _own_bytes(spec, work.passed)
    elif weights in WEIGHTS:
        dense = expert = WEIGHTS[weights]
    else:
        raise BadInput(
            f"vLLM's speed with weights in {weights!r} is not planned",
            f"planned are {', '.join(WEIGHTS)}",
        )
    return Served(spec, work, settings, hardware, dense, expert, cards, link)


def _own_bytes(spec: ModelSpec, work: TokenWork) -> tuple[float, float]:
    """Bytes of a weight of dense products and of experts, as the checkpoint stores them."""
    bits = available_weight_bits(spec)[0]
    if bits == 16 or spec.quantization is None:
        return 2.0, 2.0
    stored = weight_bytes(spec, bits).parts.get(Part.TEXT, 0) - 2.0 * (work.head + work.embedding)
    if spec.quantization.method == "mxfp4":  # experts alone
        return 2.0, max(0.25, (stored - 2.0 * work.linear) / max(1, work.expert))
    each = max(0.25, stored / max(1, work.linear + work.expert))
    return each, each


def efficiencies_of(model: Served) -> set[str]:
    """Names of the efficiencies that are its own: of its formats and kinds of layers."""
    names = {f"weights.{_dense_like(model)}", f"cache.{_cache_like(model.settings)}"}
    if model.work.passed.expert:
        names.add(f"experts.{_expert_like(model)}")
    if model.work.state:
        names.add("states")
    if _is_latent(model):
        names.add("latent")
    widths = {
        k.mixer.head_dim for k in model.work.passed.attention if isinstance(k.mixer, Attention)
    }
    if len(widths) > 1:  # Gemma 4: FlashAttention 4, or Triton, for all layers
        names.add("heads of two widths")
    return names


def step_seconds(model: Served, plan: Schedule, rates: Mapping[str, float]) -> Floats:
    """Seconds [D] of each different step of a schedule, one of each `count`."""
    rows = plan.prompt_rows + plan.decoding
    device = _products(model, plan, rows, rates)
    device = device + _experts(model, rows, rates)
    device = device + _prompt_attention(model, plan, rates) + _cache(model, plan, rates)
    device = device + _states(model, plan, rates) + _rest(model, rows, rates)
    device = device + _exchange(model, rows, rates)
    sequences = plan.decoding + np.bincount(plan.piece_step, minlength=len(rows))
    host = rates["host_step"] + rates["host_user"] * sequences
    launched = (plan.prompt_rows > 0) | model.settings.enforce_eager  # no graph of a whole step
    host = host + np.where(launched, rates[_launches_like(model)] * len(model.spec.layers), 0.0)
    seconds: Floats = np.maximum(host, device) + rates["step"]
    return seconds


def _products(model: Served, plan: Schedule, rows: Floats, rates: Mapping[str, float]) -> Floats:
    linear = model.work.passed.linear / model.cards
    reading = linear * model.dense_bytes / _stream(model, rates, f"weights.{_dense_like(model)}")
    computing = 2 * linear * rows / _matmul(model, _dense_like(model), rates)
    body = np.maximum(reading, computing)
    head = model.work.passed.head / model.cards
    sampled = plan.decoding + plan.finished
    return body + np.maximum(
        2.0 * head / _stream(model, rates, "weights.bf16") * (sampled > 0),
        2 * head * sampled / _matmul(model, "bf16", rates),
    )


def _experts(model: Served, rows: Floats, rates: Mapping[str, float]) -> Floats:
    """Grouped products: few rows read the experts they reach, each at a slow rate."""
    work = model.work.passed
    if not work.expert:
        return np.zeros_like(rows)
    expert = work.expert / model.cards
    reached = 1 - (1 - work.expert_share) ** rows
    kind = _expert_like(model)
    reading = expert * model.expert_bytes * reached / _stream(model, rates, f"experts.{kind}")
    computing = 2 * expert * work.expert_share * rows / _matmul(model, kind, rates)
    return np.maximum(reading, computing / rates["grouped"])


def _prompt_attention(model: Served, plan: Schedule, rates: Mapping[str, float]) -> Floats:
    """Operations of the pairs of queries and keys of every piece of a prompt."""
    total = np.zeros(len(plan.count))
    ends = plan.piece_start + plan.piece_rows
    for kind in model.work.passed.attention:
        pairs = _pairs(ends, kind.reach) - _pairs(plan.piece_start, kind.reach)
        per_step = np.bincount(plan.piece_step, pairs, len(total))
        total += kind.layers * kind.flops_per_pair * per_step
    cache = _cache_like(model.settings).replace("packed8", "packed")  # staged in 16 bits both
    return total / model.cards / (model.hardware.fp16_flops * rates[f"attention.{cache}"])


def _pairs(tokens: Floats, reach: int | None) -> Floats:
    """Pairs that the first `tokens` queries of a sequence see."""
    inside = np.minimum(tokens, reach or np.inf)
    pairs: Floats = inside * (inside + 1) / 2 + (tokens - inside) * (reach or 0)
    return pairs


def _cache(model: Served, plan: Schedule, rates: Mapping[str, float]) -> Floats:
    """Bytes of keys and values that the decoding sequences read."""
    total = np.zeros(len(plan.count))
    dtype = model.settings.kv_cache_dtype
    for kind in model.work.passed.attention:
        seen = np.minimum(plan.length, kind.reach or np.inf)
        total += kind.layers * _token_bytes(kind, dtype, model.cards) * seen * plan.decoding
    return total / _stream(model, rates, f"cache.{_cache_like(model.settings)}")


def _token_bytes(kind: AttentionWork, dtype: str, cards: int) -> float:
    """Bytes of one token in one layer on one card."""
    if not isinstance(kind.mixer, Attention):  # a latent, whole on each card
        return kind.cache_elements * CACHES.get(dtype, 1.0)
    heads = kind.mixer.kv_heads
    share = max(1, -(-heads // cards)) / heads
    scales = 2 * 4 * heads if dtype.endswith("_per_token_head") else 0
    element = CACHES.get(dtype, 0.5 if dtype.startswith("int4") else 1.0)
    return (kind.cache_elements * element + scales) * share


def _states(model: Served, plan: Schedule, rates: Mapping[str, float]) -> Floats:
    """Recurrent states, read and written by every sequence; the scan's operations in prompts."""
    state = model.work.state / model.cards
    moved = 2 * 2.0 * state * plan.decoding
    scan = 6 * state * plan.prompt_rows
    rate = model.hardware.fp16_flops * rates["scan"]
    return moved / _stream(model, rates, "states") + scan / rate


def _rest(model: Served, rows: Floats, rates: Mapping[str, float]) -> Floats:
    """Norms, activations and routing: bytes of the rows, and a time for each layer's kernels."""
    work = model.work
    small = rates["layer"] * work.layers + rates["expert_layer"] * work.routed_layers
    small += rates["state_layer"] * work.recurrent_layers
    moved = 2 * work.moved / model.cards * rows
    seconds: Floats = small + moved / _stream(model, rates, "moved")
    return seconds


def _exchange(model: Served, rows: Floats, rates: Mapping[str, float]) -> Floats:
    """Two all-reduces a layer: a delay each, and the bytes over the link."""
    if model.cards == 1:
        return np.zeros_like(rows)
    times = 2 * len(model.spec.layers)
    moved = rows * model.spec.hidden * 2 * 2 * (model.cards - 1) / model.cards
    seconds: Floats = times * (rates["exchange"] + moved / (model.link * rates["link"]))
    return seconds


def _stream(model: Served, rates: Mapping[str, float], name: str) -> float:
    return model.hardware.bandwidth * rates[name]


def _matmul(model: Served, weights: str, rates: Mapping[str, float]) -> float:
    """Operations a second of matrix products with weights of that format."""
    rate = model.hardware.fp16_flops
    if field := CODES_MULTIPLY.get(weights):
        rate = getattr(model.hardware, field) or rate
    return rate * rates[f"matmul.{weights if weights in CODES_MULTIPLY else 'bf16'}"]


def _launches_like(model: Served) -> str:
    """What a layer outside of graphs costs the host depends on who computes its attention."""
    if _is_latent(model):
        return "host_layer.latent"
    cache = _cache_like(model.settings).replace("packed8", "packed")
    return f"host_layer.{cache}" if cache in ("scaled", "int4", "packed") else "host_layer"


def _is_latent(model: Served) -> bool:
    return any(isinstance(kind.mixer, LatentAttention) for kind in model.work.passed.attention)


def _dense_like(model: Served) -> str:
    """The fitted format that dense products are most like: bf16, fp8 or four bits."""
    if model.dense_bytes > 1.5:
        return "bf16"
    return "fp8" if model.dense_bytes > 0.8 else "awq"


def _expert_like(model: Served) -> str:
    if model.expert_bytes > 1.5:
        return "bf16"
    return "fp8" if model.expert_bytes > 0.8 else "mxfp4"


def _cache_like(settings: ServeSettings) -> str:
    """Which kernels read it: FlashAttention 16 bits and fp8, Triton's what has scales a head, or
    the plugin's."""
    dtype = settings.kv_cache_dtype
    if settings.attention_backend:
        return "packed" if dtype.startswith("int4") else "packed8"
    return dtype if dtype in ("auto", "fp8") else "int4" if dtype.startswith("int4") else "scaled"
