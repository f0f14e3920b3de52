"""Every configuration worth asking about, as three short axes instead of a long list.

    weights x KV formats x prefill chunks

A KV format is a layout (granularity, group, token block, smoothing, rotation, window of recent
tokens) with bits for K and V and perhaps protected layers. Memory, accuracy and latency are
computed on the axes and broadcast; a Configuration is made only of what is shown to somebody.

What is left out, because it cannot differ from something that is in, or cannot help:
  - groups as wide as the model's widest head or wider (the whole head is one group already);
  - smoothing where keys keep 16 bits, or per channel, where each channel has its own offset, or
    where a cap on scores or a sink logit would notice it (Gemma 2, gpt-oss);
  - rotation with per-channel keys: it spreads the channels that per-channel scales keep apart;
  - a window as long as the prompt, a chunk as long as the prompt: nothing would be packed, or cut;
  - protection where all layers have 8 bits or more, or where it would lower K or V;
  - K and V that differ where one entry is both (MLA, DeepSeek V4);
  - sinks: nothing measured says what they are worth here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from ..accuracy.predict import outlier_layers, proposed_protections
from ..errors import BadInput
from ..formats.configuration import (
    CHUNKS,
    GROUP_SIZES,
    KV_BITS,
    Configuration,
    Granularity,
    Protection,
)
from ..memory.kv_cache import kv_bytes
from ..memory.weights import available_weight_bits
from ..models.spec import Attention, CompressedAttention, LatentAttention, ModelSpec
from ..workload import Engine, Workload

RESIDUALS = (0, 32, 64, 128)
CHANNEL_BLOCKS = (32, 64, 128)
TILE_BLOCKS = (64, 128)
PROTECTED_BITS = 8
USUAL_CHUNKS = 512, 4096

Ints = npt.NDArray[np.int64]
_PLAIN: Ints = np.array([[0, 16, 16, 0]])  # the format of an unquantized cache


@dataclass(frozen=True, slots=True)
class Layout:
    """What a KV format is besides its bits; the fields of Configuration of the same names."""

    granularity: Granularity = Granularity.PER_TOKEN
    group_size: int | None = None
    block_tokens: int | None = None
    smoothing: bool = False
    rotation: bool = False
    residual: int = 0


@dataclass(frozen=True, eq=False)
class Space:
    """weights [W] x formats [F] x chunks [C]; point (w, f, c) has index (w * F + f) * C + c.

    A format is a row of four parallel arrays of length F: its layout (an index into `layouts`),
    K bits, V bits, and protection (an index into `protections`, of which the first is none).
    """

    weights: tuple[int, ...]
    chunks: tuple[int | None, ...]
    layouts: tuple[Layout, ...]
    protections: tuple[tuple[int, ...], ...]
    """Layers kept at PROTECTED_BITS; the first is no layer."""
    layout: Ints = field(repr=False)
    k_bits: Ints = field(repr=False)
    v_bits: Ints = field(repr=False)
    protection: Ints = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.weights), len(self.layout), len(self.chunks)

    def __len__(self) -> int:
        w, f, c = self.shape
        return w * f * c

    def configuration(self, index: int) -> Configuration:
        """The configuration at flat `index`."""
        w, f, c = (int(i) for i in np.unravel_index(index, self.shape))
        return self.at(self.weights[w], f, self.chunks[c])

    def at(self, weight_bits: int, f: int, chunk: int | None) -> Configuration:
        """Format `f` with these weights and this chunk."""
        layout = self.layouts[self.layout[f]]
        layers = self.protections[self.protection[f]]
        protection = Protection(layers, PROTECTED_BITS, PROTECTED_BITS) if layers else None
        return Configuration(
            weight_bits=weight_bits,
            k_bits=int(self.k_bits[f]),
            v_bits=int(self.v_bits[f]),
            granularity=layout.granularity,
            group_size=layout.group_size,
            block_tokens=layout.block_tokens,
            smoothing=layout.smoothing,
            rotation=layout.rotation,
            residual=layout.residual,
            protection=protection,
            chunk=chunk,
        )

    def of_layout(self, name: str) -> npt.NDArray[np.generic]:
        """A field of every format's layout as an array [F]; None becomes 0."""
        values = [getattr(layout, name) or 0 for layout in self.layouts]
        return np.array(values)[self.layout]

    @cached_property
    def complexity(self) -> Ints:
        """How far a point is from what people run, [W, F, C]. Between equals, the least is
        recommended.

            8  K and V that differ
            4  tiles or per-tensor scales; protected layers
            2  scales per channel; a group size; smoothing; rotation; a window of recent tokens
            2  each halving of the bits of weights, of keys, of values
            1  a chunk
        """
        common = Granularity.PER_TOKEN, Granularity.PER_CHANNEL
        weight = [
            common.index(x.granularity) if x.granularity in common else 2 for x in self.layouts
        ]
        of_format = _halvings(self.k_bits) + _halvings(self.v_bits)
        of_format += 4 * (self.k_bits != self.v_bits) + 2 * (self.protection > 0)
        of_format += np.array(weight)[self.layout]
        for name in ("group_size", "smoothing", "rotation", "residual"):
            of_format += self.of_layout(name) != 0
        of_weights = _halvings(np.array(self.weights))
        of_chunk = np.array([chunk is not None for chunk in self.chunks], dtype=np.int64)
        of_layers = 2 * (of_weights[:, None, None] + of_format[None, :, None])
        return of_layers + of_chunk[None, None, :]

    @cached_property
    def two_bits(self) -> npt.NDArray[np.bool_]:
        """Points with 2-bit keys or values, [W, F, C]."""
        of_format = np.minimum(self.k_bits, self.v_bits) < 4
        return np.broadcast_to(of_format[None, :, None], self.shape)

    @cached_property
    def usual_chunk(self) -> npt.NDArray[np.bool_]:
        """Points that prefill in one shot or in chunks that servers use, [W, F, C]."""
        least, most = USUAL_CHUNKS
        usual = np.array([c is None or least <= c <= most for c in self.chunks])
        return np.broadcast_to(usual[None, None, :], self.shape)


def enumerate_space(
    spec: ModelSpec,
    workload: Workload,
    engine: Engine,
    proposed: Sequence[tuple[int, ...]] | None = None,
) -> Space:
    """All configurations of this model and workload that the engine can run.

    `proposed` are sets of layers to protect beside the presets; None: those of the model's
    calibration on this machine.
    """
    head = _widest_head(spec)
    groups = (None, *(g for g in GROUP_SIZES if g < head))
    residuals = [r for r in RESIDUALS if r < workload.context]
    protections: tuple[tuple[int, ...], ...] = ((),)
    layouts: tuple[Layout, ...] = (Layout(),)
    rows = _PLAIN
    if head and engine is Engine.KVPARETO:
        protections = protection_presets(spec, proposed)
        latent = all(not isinstance(m, Attention) for m, _ in spec.mixer_counts)
        # A cap on scores or a sink logit would see the constant that smoothing takes from them.
        smooths = not any(
            isinstance(m, Attention) and (m.softcap is not None or m.sinks)
            for m, _ in spec.mixer_counts
        )
        layouts = (Layout(), *_layouts(groups, residuals, smooths))
        rows = _packed_formats(layouts, len(protections), latent)
    elif head:
        layouts, rows = _quantized_cache_formats(spec, workload, engine, groups, residuals)
    return Space(
        weights=tuple(available_weight_bits(spec)),
        chunks=(None, *(chunk for chunk in CHUNKS if chunk < workload.context)),
        layouts=layouts,
        protections=protections,
        layout=rows[:, 0],
        k_bits=rows[:, 1],
        v_bits=rows[:, 2],
        protection=rows[:, 3],
    )


def _halvings(bits: Ints) -> Ints:
    """16, 8, 4, 2 bits -> 0, 1, 2, 3."""
    return np.round(4 - np.log2(bits)).astype(np.int64)


def protection_presets(
    spec: ModelSpec, proposed: Sequence[tuple[int, ...]] | None = None
) -> tuple[tuple[int, ...], ...]:
    """No layer; the first and last that cache keys; those known to carry the model's key
    outliers, or, where none is known, the first two and last two; what is `proposed`."""
    probed = proposed_protections(spec) if proposed is None else tuple(proposed)
    caching = [
        i
        for i, layer in enumerate(spec.layers)
        if any(isinstance(m, Attention) and m.shares_kv_with is None for m in layer.mixers)
    ]
    if len(caching) < 8:
        return tuple(dict.fromkeys([(), *probed]))
    wider = tuple(sorted(set(outlier_layers(spec)) & set(caching)))
    presets = ((), (caching[0], caching[-1]), wider or (*caching[:2], *caching[-2:]), *probed)
    return tuple(dict.fromkeys(presets))


def _widest_head(spec: ModelSpec) -> int:
    """Channels of the widest cached head; 0 where nothing is cached by token."""
    widths = [0]
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, Attention):
            widths += [mixer.head_dim, mixer.value_dim]
        elif isinstance(mixer, LatentAttention):
            widths.append(mixer.kv_rank)
        elif isinstance(mixer, CompressedAttention):
            widths.append(mixer.head_dim)
    return max(widths)


def _packed_formats(layouts: Sequence[Layout], presets: int, latent: bool) -> Ints:
    """The kvpareto runtime's formats [F, 4]: layout, K bits, V bits, protection. Layout 0 is the
    unquantized cache's."""
    per_channel = np.array([x.granularity is Granularity.PER_CHANNEL for x in layouts])
    packs_keys = per_channel | np.array([x.smoothing for x in layouts])
    layout, k, v, preset = (
        axis.ravel()
        for axis in np.meshgrid(
            np.arange(1, len(layouts)), KV_BITS, KV_BITS, np.arange(presets), indexing="ij"
        )
    )
    narrow, wide = np.minimum(k, v), np.maximum(k, v)
    kept = (narrow < 16) & ~((k == 16) & packs_keys[layout])
    kept &= (preset == 0) | ((narrow < PROTECTED_BITS) & (wide <= PROTECTED_BITS))
    if latent:
        kept &= k == v
    return np.concatenate([_PLAIN, np.stack([layout, k, v, preset], axis=1)[kept]])


def _layouts(
    groups: Sequence[int | None], residuals: Sequence[int], smooths: bool
) -> Iterator[Layout]:
    kinds: list[tuple[Granularity, int | None, int | None]]
    kinds = [(Granularity.PER_TOKEN, g, None) for g in groups]
    kinds += [(Granularity.PER_CHANNEL, g, b) for g, b in product(groups, CHANNEL_BLOCKS)]
    kinds += [(Granularity.PER_BLOCK, g, b) for g, b in product(groups, TILE_BLOCKS)]
    kinds += [(Granularity.PER_TENSOR, None, None)]
    for (granularity, group, block), residual in product(kinds, residuals):
        turns = (False,) if granularity is Granularity.PER_CHANNEL else (False, True)
        for smoothing, rotation in product(turns if smooths else (False,), turns):
            yield Layout(granularity, group, block, smoothing, rotation, residual)


def _quantized_cache_formats(
    spec: ModelSpec,
    workload: Workload,
    engine: Engine,
    groups: Sequence[int | None],
    residuals: Sequence[int],
) -> tuple[tuple[Layout, ...], Ints]:
    """transformers: its DynamicCache, and what its QuantizedCache can hold of this model."""
    layouts, rows = [Layout()], [_PLAIN[0]]
    # No window means QuantizedCache's own, of 128 tokens.
    for group, residual in product(groups, [r for r in residuals if r < 128]):
        try:
            probe = Configuration(k_bits=4, v_bits=4, group_size=group, residual=residual)
            kv_bytes(spec, probe, workload, engine)
        except BadInput:
            continue
        layouts.append(Layout(group_size=group, residual=residual))
        rows += [np.array([len(layouts) - 1, b, b, 0]) for b in KV_BITS if b < 16]
    return tuple(layouts), np.stack(rows)
