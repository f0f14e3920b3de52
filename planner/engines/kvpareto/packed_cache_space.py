"""KV bytes of every format of a space at once: the same as packed_cache.py, to the byte.

Thousands of formats are made of a few hundred sides (K or V of one layout at one number of
bits). Each side is weighed once, by the `KVFormat` that the runtime allocates from, for each
kind of layer; the formats are sums of table entries.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...formats.configuration import SPACE_BITS, Configuration
from ...formats.kv_format import KVFormat, SideFormat
from ...formats.space import PROTECTED_BITS, Ints, KVLayout, Space
from ...memory.kv_cache import state_bytes
from ...models.spec import LatentAttention, Mixer, ModelSpec
from ...workload import Workload
from .packed_cache import PackedPart, packed_part


def packed_table(spec: ModelSpec, space: Space, workload: Workload) -> Ints:
    """KV bytes at context + output tokens, [F, C], or [F, 1] where the chunk changes nothing."""
    of_bits = np.zeros(max(SPACE_BITS) + 1, dtype=np.int64)  # bits -> column of the tables
    of_bits[list(SPACE_BITS)] = range(len(SPACE_BITS))
    k_index, v_index = of_bits[space.k_bits], of_bits[space.v_bits]
    kept = of_bits[PROTECTED_BITS]
    sides = _Sides(space.layouts)
    row = sides.row[space.layout]
    total: Ints = np.full((len(space.layout), 1), state_bytes(spec, workload.batch))
    for mixer, count in spec.mixer_counts:
        chunks = space.chunks if _slides(mixer, workload) else (None,)
        keys, values = sides.tables(mixer, workload, chunks)
        one_layer = keys[row, k_index] + values[row, v_index]
        of_preset = [_count(spec, mixer, layers) for layers in space.protections]
        protected = np.array(of_preset)[space.protection][:, None]
        more = (keys[:, kept] + values[:, kept])[row] - one_layer
        total = total + count * one_layer + protected * more
    return total


def _slides(mixer: Mixer, workload: Workload) -> bool:
    window = getattr(mixer, "window", None) or getattr(mixer, "local_chunk", None)
    return window is not None and window < workload.tokens


def _count(spec: ModelSpec, mixer: Mixer, layers: tuple[int, ...]) -> int:
    here = (spec.layers[i] for i in layers if i < len(spec.layers))
    return Counter(m for layer in here for m in layer.mixers)[mixer]


class _Sides:
    """Bytes of K and of V by layout and number of bits.

    Neither the rotation nor, for V, the smoothing changes a byte: `row` maps every layout to the
    row of its bytes.
    """

    def __init__(self, layouts: tuple[KVLayout, ...]) -> None:
        rows: dict[KVLayout, int] = {}
        self.row = np.array(
            [rows.setdefault(replace(x, rotation=False), len(rows)) for x in layouts]
        )
        self._layouts = list(rows)
        plain = KVFormat.of(Configuration(), 0)
        self._formats = [_formats_of(layout, plain) for layout in rows]

    def tables(
        self, mixer: Mixer, workload: Workload, chunks: Sequence[int | None]
    ) -> tuple[Ints, Ints]:
        """K and V bytes of one layer, [rows, SPACE_BITS, chunks]."""
        keys = np.zeros((len(self._formats), len(SPACE_BITS), len(chunks)), dtype=np.int64)
        values = np.zeros_like(keys)
        of_block: dict[int | None, list[PackedPart | None]] = {}
        seen: dict[tuple[SideFormat, int, tuple[int, ...]], list[int]] = {}

        def weigh(side: SideFormat, heads: int, dim: int, capacities: tuple[int, ...]) -> list[int]:
            key = side, dim, capacities
            if key not in seen:
                seen[key] = _along(side, workload.batch, heads, dim, capacities)
            return seen[key]

        latent = isinstance(mixer, LatentAttention)
        for row, (layout, formats) in enumerate(zip(self._layouts, self._formats, strict=True)):
            if latent:  # rotary keys stay in 16 bits
                formats = tuple(f.of_latent(16) for f in formats)
            block = layout.block_tokens
            if block not in of_block:
                # A 16-bit side beside a packed one has the packed one's capacity.
                form, tokens = formats[-1], workload.tokens
                of_block[block] = [packed_part(mixer, form, tokens, chunk) for chunk in chunks]
            parts = [part for part in of_block[block] if part is not None]
            if not parts:
                return keys, values
            one, capacities = parts[0], tuple(part.tokens for part in parts)
            keys[row] = [weigh(f.key, one.heads, one.key_dim, capacities) for f in formats]
            values[row] = [weigh(f.value, one.heads, one.value_dim, capacities) for f in formats]
            keys[row] += workload.batch * np.array([part.beside for part in parts])
        return keys, values


def _along(
    side: SideFormat, batch: int, heads: int, dim: int, capacities: Sequence[int]
) -> list[int]:
    """Bytes of a side at several capacities.

    Beyond the tokens that stay in 16 bits, bytes are linear in packed tokens: two capacities are
    weighed and the others lie on their line.
    """

    def weigh(capacity: int) -> int:
        return sum(b.nbytes for b in side.buffers(batch, heads, dim, capacity)) if dim else 0

    if len(capacities) == 1:
        return [weigh(capacities[0])]
    linear = [c for c in capacities if c >= side.sinks + side.residual_capacity]
    nbytes = {c: weigh(c) for c in {*capacities} - {*linear}}
    if linear:
        low, high = min(linear), max(linear)
        at_low = weigh(low)
        at_high = weigh(high) if high > low else at_low
        from_low = {c: side.packed_tokens(c) - side.packed_tokens(low) for c in linear}
        rise, run = at_high - at_low, from_low[high] or 1
        nbytes |= {c: at_low + rise * more // run for c, more in from_low.items()}
    return [nbytes[c] for c in capacities]


def _formats_of(layout: KVLayout, plain: KVFormat) -> tuple[KVFormat, ...]:
    """The formats of a layout at each of SPACE_BITS; `plain` is that of 16 bits."""
    packed = Configuration(
        k_bits=PROTECTED_BITS,
        v_bits=PROTECTED_BITS,
        granularity=layout.granularity,
        group_size=layout.group_size,
        block_tokens=layout.block_tokens,
        smoothing=layout.smoothing,
        residual=layout.residual,
    )
    return tuple(
        KVFormat.at_bits(packed, bits, bits) if bits < 16 else plain for bits in SPACE_BITS
    )
