"""Bytes of a model's caches: exact, for the engine that fills them.

`transformers` keeps keys and values in the checkpoint's dtype (DynamicCache): full layers keep
every token, sliding and local ones the window less the current token, MLA its latent and rotary
key, recurrent layers their states. Where the configuration quantizes KV it is a QuantizedCache.
`kvpareto` keeps each layer in the buffers of `kv_format`, the very ones its runtime allocates.

A model's layers are few kinds of mixers; each kind is weighed once, so that a plan can weigh
thousands of formats.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import BadInput
from ..formats.configuration import Configuration, Granularity
from ..formats.kv_format import KVFormat
from ..models.spec import (
    Attention,
    CompressedAttention,
    LatentAttention,
    Mixer,
    ModelSpec,
    RecurrentState,
)
from ..workload import Engine, Workload

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
QUANTIZED_RESIDUAL = 128  # tokens QuantizedCache keeps in 16 bits unless told otherwise

_Counts = Iterable[tuple[Mixer, int]]


@dataclass(frozen=True, slots=True)
class KVBytes:
    """Bytes for context + output tokens of the whole batch.

    `per_token` is the growth for one further token of every sequence at that length (its average
    over one token block where tokens are packed in blocks, rounded down); `fixed` is the rest:
    total = per_token * tokens + fixed.
    """

    total: int
    per_token: int
    fixed: int


def kv_bytes(spec: ModelSpec, config: Configuration, workload: Workload, engine: Engine) -> KVBytes:
    """KV bytes of context + output tokens, exact.

    Raises BadInput where the engine cannot hold the cache that the configuration asks for.
    """
    tokens = workload.tokens
    if engine is Engine.KVPARETO:
        step = math.lcm(config.block_tokens or 1, _rates(spec))
        now, later = (_packed(spec, config, workload, tokens + more) for more in (0, step))
    elif config.quantizes_kv:
        layout = _quantized_layout(spec, config)
        now, step = _quantized(spec, layout, workload, config.chunk), 1
        later = now + _quantized_growth(spec, layout) * workload.batch
    else:
        step = _rates(spec)
        now, later = (_dynamic(spec, workload.batch, tokens + more) for more in (0, step))
    per_token = (later - now) // step
    return KVBytes(now, per_token, now - per_token * tokens)


def _rates(spec: ModelSpec) -> int:
    """Tokens after which growth repeats: the longest a layer compresses into one entry."""
    return math.lcm(
        1, *(m.rate for m, _ in spec.mixer_counts if isinstance(m, CompressedAttention))
    )


def state_bytes(spec: ModelSpec, batch: int) -> int:
    """Bytes of the recurrent states and convolution tails of every layer."""
    return (
        sum(
            _state(mixer, spec.dtype) * count
            for mixer, count in spec.mixer_counts
            if isinstance(mixer, RecurrentState)
        )
        * batch
    )


def _state(mixer: RecurrentState, dtype: str) -> int:
    state = mixer.state * DTYPE_BYTES[mixer.state_dtype or dtype]
    return state + mixer.conv * DTYPE_BYTES[mixer.conv_dtype or dtype]


def _index_bytes(mixer: Attention | LatentAttention, dtype: str) -> int:
    """Bytes that a sparse-attention indexer caches for each token."""
    indexer = mixer.indexer
    if indexer is None:
        return 0
    return indexer.cached_width * DTYPE_BYTES[indexer.dtype or dtype] + indexer.position_bytes


def kept_tokens(mixer: Attention | LatentAttention, tokens: int) -> int:
    """Tokens transformers' DynamicCache keeps of `tokens`: a window w leaves its last w - 1."""
    window = mixer.window or (mixer.local_chunk if isinstance(mixer, Attention) else None)
    # A window of one token slices nothing off: `[-1 + 1 :]` is the whole tensor.
    return tokens if window is None or window == 1 else min(tokens, window - 1)


def _dynamic(spec: ModelSpec, batch: int, tokens: int) -> int:
    element = DTYPE_BYTES[spec.dtype]
    total = 0
    for mixer, count in spec.mixer_counts:
        if isinstance(mixer, Attention):
            if mixer.shares_kv_with is None:
                heads = mixer.expanded_heads or mixer.kv_heads
                width = heads * (mixer.head_dim + mixer.value_dim) * element
                width += _index_bytes(mixer, spec.dtype)
                total += count * kept_tokens(mixer, tokens) * width
        elif isinstance(mixer, LatentAttention):
            width = (mixer.kv_rank + mixer.rope_dim) * element + _index_bytes(mixer, spec.dtype)
            total += count * kept_tokens(mixer, tokens) * width
        elif isinstance(mixer, CompressedAttention):
            entries = tokens // mixer.rate * mixer.head_dim
            total += count * (entries + compressed_rest(mixer, tokens)) * element
    return total * batch + state_bytes(spec, batch)


def compressed_rest(mixer: CompressedAttention, tokens: int) -> int:
    """Elements a compressing layer keeps beside its entries of `head_dim` channels.

    The window (keys are the values), the tokens that wait to be compressed with their gates,
    and where windows overlap the last half-entry, each for the indexer too.
    """
    waiting, entries = tokens % mixer.rate, tokens // mixer.rate
    small = mixer.indexer.head_dim if mixer.indexer else 0
    series = 2 if mixer.overlaps else 1
    kept = min(tokens, mixer.window - 1) * mixer.head_dim + entries * small
    kept += 2 * waiting * series * (mixer.head_dim + small)
    if mixer.overlaps and entries:
        kept += 2 * mixer.rate * (mixer.head_dim + small)
    return kept


# --- transformers' QuantizedCache -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _QuantizedLayout:
    """`bits` a value, one scale and one shift in the model's dtype for each `group` values."""

    bits: int
    group: int
    residual: int


def _quantized_layout(spec: ModelSpec, config: Configuration) -> _QuantizedLayout:
    problem = _not_quantized_cache(spec, config)
    if problem:
        raise BadInput(
            f"transformers' QuantizedCache cannot hold {config}: {problem}",
            "use --engine kvpareto, or one width for K and V in groups: k4v4-g64",
        )
    group = config.group_size or _head_dims(spec).pop()
    return _QuantizedLayout(config.k_bits, group, config.residual or QUANTIZED_RESIDUAL)


def _not_quantized_cache(spec: ModelSpec, config: Configuration) -> str | None:
    if not all(isinstance(m, Attention) for m, _ in spec.mixer_counts) or any(
        kept_tokens(m, 2**40) < 2**40 or m.shares_kv_with is not None or m.indexer is not None
        for m, _ in spec.mixer_counts
        if isinstance(m, Attention)
    ):
        return "it takes models with full attention in every layer only"
    if config.k_bits != config.v_bits or config.protection is not None:
        return "it has one width for all keys and values"
    if config.granularity is not Granularity.PER_TOKEN:
        return "it quantizes groups of channels, nothing else"
    if config.smoothing or config.rotation or config.sinks:
        return "it neither smooths nor rotates nor keeps sinks"
    dims = _head_dims(spec)
    if len(dims) != 1 or (config.group_size and dims.pop() % config.group_size):
        return "its groups must divide every head"
    return None


def _head_dims(spec: ModelSpec) -> set[int]:
    return {
        dim
        for m, _ in spec.mixer_counts
        if isinstance(m, Attention)
        for dim in (m.head_dim, m.value_dim)
    }


def _residual_tokens(layout: _QuantizedLayout, workload: Workload, chunk: int | None) -> int:
    """Tokens in 16 bits: the first chunk is quantized at once, a full residual is flushed."""
    waiting = 0
    chunk = chunk or workload.context
    later_chunks, rest = divmod(workload.context - min(chunk, workload.context), chunk)
    if chunk < layout.residual:
        per_flush = -(-layout.residual // chunk)
        waiting = later_chunks % per_flush * chunk
    if rest:
        waiting = waiting + rest if waiting + rest < layout.residual else 0
    first = min(layout.residual - waiting, workload.output)
    if first < layout.residual - waiting:
        return waiting + first
    return (workload.output - first) % layout.residual


def _quantized(
    spec: ModelSpec, layout: _QuantizedLayout, workload: Workload, chunk: int | None
) -> int:
    element = DTYPE_BYTES[spec.dtype]
    residual = _residual_tokens(layout, workload, chunk)
    packed = workload.tokens - residual
    total = 0
    for mixer, count in spec.mixer_counts:
        assert isinstance(mixer, Attention)
        width = mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
        values = workload.batch * packed * width
        total += count * (values * layout.bits // 8 + values // layout.group * 2 * element)
        total += count * workload.batch * residual * width * element
    return total


def _quantized_growth(spec: ModelSpec, layout: _QuantizedLayout) -> int:
    """Bytes one more packed token costs each sequence."""
    width = sum(
        count * m.kv_heads * (m.head_dim + m.value_dim)
        for m, count in spec.mixer_counts
        if isinstance(m, Attention)
    )
    return width * layout.bits // 8 + width // layout.group * 2 * DTYPE_BYTES[spec.dtype]


# --- kvpareto's packed cache ----------------------------------------------------------------


def _packed(spec: ModelSpec, config: Configuration, workload: Workload, tokens: int) -> int:
    protected: Counter[Mixer] = Counter()
    total = state_bytes(spec, workload.batch)
    if config.protection is not None:
        for index in config.protection.layers:
            if index < len(spec.layers):
                protected.update(spec.layers[index].mixers)
        form = KVFormat.of(config, config.protection.layers[0])
        total += _packed_layers(protected.items(), form, config, workload, tokens)
    index = next(i for i in range(2**20) if config.layer_bits(i) == (config.k_bits, config.v_bits))
    rest = ((mixer, count - protected[mixer]) for mixer, count in spec.mixer_counts)
    form = KVFormat.of(config, index)
    return total + _packed_layers(rest, form, config, workload, tokens)


def _packed_layers(
    mixers: _Counts, form: KVFormat, config: Configuration, workload: Workload, tokens: int
) -> int:
    batch = workload.batch
    total = 0
    for mixer, count in mixers:
        part = packed_part(mixer, form, tokens, config.largest_chunk)
        if count and part is not None:
            shape = batch, part.heads, part.key_dim, part.value_dim, part.tokens
            total += count * (form.nbytes(*shape) + batch * part.beside)
    return total


@dataclass(frozen=True, slots=True)
class PackedPart:
    """What one mixer keeps for each sequence: buffers of this shape, and bytes beside them."""

    heads: int
    key_dim: int
    value_dim: int
    tokens: int
    beside: int = 0


def packed_part(mixer: Mixer, form: KVFormat, tokens: int, chunk: int | None) -> PackedPart | None:
    """The buffers' shape for `tokens` tokens prefilled in chunks; None where nothing is packed."""
    match mixer:
        case LatentAttention():
            kept = form.capacity(mixer.window, tokens, chunk)
            beside = kept * (mixer.rope_dim * 2 + _index_bytes(mixer, "bfloat16"))
            return PackedPart(1, mixer.kv_rank, 0, kept, beside)
        case CompressedAttention():
            beside = 2 * compressed_rest(mixer, tokens)
            return PackedPart(1, mixer.head_dim, 0, tokens // mixer.rate, beside)
        case Attention() if mixer.shares_kv_with is None:
            capacity = form.capacity(mixer.window or mixer.local_chunk, tokens, chunk)
            beside = capacity * _index_bytes(mixer, "bfloat16")
            return PackedPart(mixer.kv_heads, mixer.head_dim, mixer.value_dim, capacity, beside)
        case _:
            return None
