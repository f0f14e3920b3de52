"""The KV formats that the kvpareto runtime can run for a model."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from ...engine import Formats
from ...formats.configuration import SPACE_BITS, Granularity
from ...formats.space import PLAIN, PROTECTED_BITS, Ints, KVLayout
from ...models.spec import Attention, LatentAttention, ModelSpec

CHANNEL_BLOCKS = (32, 64, 128)
TILE_BLOCKS = (64, 128)


def formats(
    spec: ModelSpec,
    groups: Sequence[int | None],
    residuals: Sequence[int],
    protections: tuple[tuple[int, ...], ...],
) -> Formats:
    """Every layout at every pair of bits, with each set of protected layers."""
    latent = all(not isinstance(m, Attention) for m, _ in spec.mixer_counts)
    # A cap on scores or a sink logit would see the constant that smoothing takes from them.
    smooths = not any(
        isinstance(m, Attention) and (m.softcap is not None or m.sinks)
        for m, _ in spec.mixer_counts
    )
    layouts = (KVLayout(), *_layouts(groups, residuals, smooths))
    if any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts):
        layouts = tuple(x for x in layouts if _packs_latents(x))
    return Formats(layouts, protections, _packed_formats(layouts, len(protections), latent))


def _packed_formats(layouts: Sequence[KVLayout], presets: int, latent: bool) -> Ints:
    """Formats [F, 4]: layout, K bits, V bits, protection. Layout 0 is the
    unquantized cache's."""
    per_channel = np.array([x.granularity is Granularity.PER_CHANNEL for x in layouts])
    packs_keys = per_channel | np.array([x.smoothing for x in layouts])
    layout, k, v, preset = (
        axis.ravel()
        for axis in np.meshgrid(
            np.arange(1, len(layouts)), SPACE_BITS, SPACE_BITS, np.arange(presets), indexing="ij"
        )
    )
    narrow, wide = np.minimum(k, v), np.maximum(k, v)
    kept = (narrow < 16) & ~((k == 16) & packs_keys[layout])
    kept &= (preset == 0) | ((narrow < PROTECTED_BITS) & (wide <= PROTECTED_BITS))
    if latent:
        kept &= k == v
    return np.concatenate([PLAIN, np.stack([layout, k, v, preset], axis=1)[kept]])


def _packs_latents(layout: KVLayout) -> bool:
    """Whether latents are packed so (packed_cache.check_latents)."""
    by_token = layout.granularity is Granularity.PER_TOKEN
    return by_token and not (layout.smoothing or layout.rotation)


def _layouts(
    groups: Sequence[int | None], residuals: Sequence[int], smooths: bool
) -> Iterator[KVLayout]:
    kinds: list[tuple[Granularity, int | None, int | None]]
    kinds = [(Granularity.PER_TOKEN, g, None) for g in groups]
    kinds += [(Granularity.PER_CHANNEL, g, b) for g, b in product(groups, CHANNEL_BLOCKS)]
    kinds += [(Granularity.PER_BLOCK, g, b) for g, b in product(groups, TILE_BLOCKS)]
    kinds += [(Granularity.PER_TENSOR, None, None)]
    for (granularity, group, block), residual in product(kinds, residuals):
        turns = (False,) if granularity is Granularity.PER_CHANNEL else (False, True)
        for smoothing, rotation in product(turns if smooths else (False,), turns):
            yield KVLayout(granularity, group, block, smoothing, rotation, residual)
