"""Bytes of transformers' QuantizedCache: groups of channels in few bits, the last tokens in 16."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from ...engine import Formats
from ...errors import BadInput
from ...formats.configuration import SPACE_BITS, Configuration, Granularity
from ...formats.dtypes import DTYPE_BYTES
from ...formats.space import PLAIN, KVLayout
from ...light_dataclass import dataclass
from ...memory.kv_cache import kept_tokens
from ...models.spec import Attention, ModelSpec
from ...workload import Workload

QUANTIZED_RESIDUAL = 128  # tokens QuantizedCache keeps in 16 bits unless told otherwise


def formats(spec: ModelSpec, groups: Sequence[int | None], residuals: Sequence[int]) -> Formats:
    """The DynamicCache's format, and what a QuantizedCache can hold of this model."""
    layouts, rows = [KVLayout()], [PLAIN[0]]
    # No window means QuantizedCache's own.
    for group, residual in product(groups, [r for r in residuals if r < QUANTIZED_RESIDUAL]):
        probe = Configuration(k_bits=4, v_bits=4, group_size=group, residual=residual)
        if any(_not_quantized_cache(reading, probe) for reading in (spec, *spec.ends)):
            continue
        layouts.append(KVLayout(group_size=group, residual=residual))
        rows += [np.array([len(layouts) - 1, b, b, 0]) for b in SPACE_BITS if b < 16]
    return Formats(tuple(layouts), ((),), np.stack(rows))


@dataclass(frozen=True, slots=True)
class QuantizedLayout:
    """`bits` a value, one scale and one shift in the model's dtype for each `group` values."""

    bits: int
    group: int
    residual: int


def quantized_layout(spec: ModelSpec, config: Configuration) -> QuantizedLayout:
    """How the cache holds `config`. Raises BadInput where it cannot."""
    problem = _not_quantized_cache(spec, config)
    if problem:
        raise BadInput(
            f"transformers' QuantizedCache cannot hold {config}: {problem}",
            "use --engine kvpareto, or one width for K and V in groups: k4v4-g64",
        )
    group = config.group_size or _head_dims(spec).pop()
    return QuantizedLayout(config.k_bits, group, config.residual or QUANTIZED_RESIDUAL)


def _not_quantized_cache(spec: ModelSpec, config: Configuration) -> str | None:
    if not all(isinstance(m, Attention) for m, _ in spec.mixer_counts) or any(
        kept_tokens(m, 2**40) < 2**40 or m.shares_kv_with is not None or m.indexer is not None
        for m, _ in spec.mixer_counts
        if isinstance(m, Attention)
    ):
        return "it takes models with full attention in every layer only"
    if config.k_bits not in SPACE_BITS or config.v_bits not in SPACE_BITS:
        return "of its widths, 8, 4 and 2 bits are planned"
    if config.clip < 100 or config.affine:
        return "it neither clips a range nor knows affine maps"
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


def _residual_tokens(layout: QuantizedLayout, workload: Workload, chunk: int | None) -> int:
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


def quantized_bytes(
    spec: ModelSpec, layout: QuantizedLayout, workload: Workload, chunk: int | None
) -> int:
    """Bytes of context + output tokens of all sequences."""
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


def quantized_growth(spec: ModelSpec, layout: QuantizedLayout) -> int:
    """Bytes one more packed token costs each sequence."""
    width = sum(
        count * m.kv_heads * (m.head_dim + m.value_dim)
        for m, count in spec.mixer_counts
        if isinstance(m, Attention)
    )
    return width * layout.bits // 8 + width // layout.group * 2 * DTYPE_BYTES[spec.dtype]
