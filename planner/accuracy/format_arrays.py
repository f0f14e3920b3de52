"""KV formats as arrays, from the fields of a space or from configurations, with what a checkpoint
says of its keys and which layers are protected.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..formats.code_tables import CODED
from ..formats.configuration import MOST_TOKENS, Configuration, Granularity
from ..models.spec import ModelSpec
from .coded_noise import worth
from .formula import GRANULARITIES, OUTLIER, Floats, FormatArrays
from .model_features import Features, features_of
from .named_noise import with_names
from .retention import OutlierLayers, protected_shares

UNSCALED = ("fp8", "fp8_e5m2")
"""Floats that engines keep without a scale of their own: e4m3 ends at 448."""


def format_arrays(
    spec: ModelSpec,
    *,
    k_bits: ArrayLike,
    v_bits: ArrayLike,
    granularity: Sequence[str],
    group_size: ArrayLike,
    block_tokens: ArrayLike,
    smoothing: ArrayLike,
    rotation: ArrayLike,
    residual: ArrayLike,
    kv_names: Sequence[tuple[str, str]] = (),
) -> FormatArrays:
    """Cache formats of a space as arrays of one length F; 0 stands for a field's None.

    `granularity` holds values of Granularity. Groups as wide as the head are the head. `kv_names`
    are names of keys' and values' formats, "" for sides that have bits.
    """
    head = float(features_of(spec, None).head_dim)
    names = {str(g): i for i, g in enumerate(GRANULARITIES)}
    group = np.asarray(group_size, dtype=float)
    turned = np.asarray(rotation, dtype=float)
    formats = FormatArrays(
        k_bits=np.asarray(k_bits, dtype=float),
        v_bits=np.asarray(v_bits, dtype=float),
        granularity=np.array([names[str(g)] for g in granularity]),
        group=np.where((group > 0) & (group < head), group, head),
        block=np.maximum(np.asarray(block_tokens, dtype=float), 1.0),
        smoothing=np.asarray(smoothing, dtype=float),
        rotate_k=turned,
        rotate_v=turned,
        residual=np.asarray(residual, dtype=float),
        # as in the rows: a window is of a cache that is written after the prompt was attended
        exact_prompt=(np.asarray(residual) > 0).astype(float),
        float_keys=np.array([float(k in UNSCALED) for k, _ in kv_names]) if kv_names else None,
    )
    return with_names(formats, int(head), kv_names)


def formats_of(spec: ModelSpec, configs: Sequence[Configuration]) -> FormatArrays:
    """The cache formats of configurations."""
    head = int(features_of(spec, None).head_dim)
    bits = [(c.k_bits, c.v_bits) if _served(c) else worth(c, head) for c in configs]
    turned = [turned_by_maps(c) for c in configs]
    formats = format_arrays(
        spec,
        k_bits=[min(k, c.rope_bits) for c, (k, _) in zip(configs, bits, strict=True)],
        v_bits=[v for _, v in bits],
        granularity=[c.granularity for c in configs],
        group_size=[c.group_size or 0 for c in configs],
        block_tokens=[c.block_tokens or 0 for c in configs],
        smoothing=[c.smoothing or keys for c, (keys, _) in zip(configs, turned, strict=True)],
        rotation=[c.rotation or keys for c, (keys, _) in zip(configs, turned, strict=True)],
        residual=[c.residual for c in configs],
        kv_names=[(c.k_format, c.v_format) for c in configs],
    )
    values = np.array([float(values) for _, values in turned])
    return replace(formats, rotate_v=np.maximum(formats.rotate_v, values))


def turned_by_maps(config: Configuration) -> tuple[bool, bool]:
    """Whether affine maps count as smoothing and rotation of keys, and as rotation of values. Keys
    that have scales of their own by channel are even already: there maps add their bits alone."""
    channels = config.granularity is Granularity.PER_CHANNEL
    return config.affine and not channels, config.affine


def all_kept(config: Configuration, context: int) -> Configuration:
    """Sinks and a window that hold the whole prompt, as one window that does."""
    kept = config.sinks + config.residual
    whole = config.sinks and config.quantizes_kv and kept >= context
    return replace(config, residual=min(kept, MOST_TOKENS["res"]), sinks=0) if whole else config


def _served(config: Configuration) -> bool:
    """Whether its formats have names that are engines' own, which named_noise.py knows."""
    return any(name and name not in CODED for name in (config.k_format, config.v_format))


def with_read_keys(
    features: Features,
    formats: FormatArrays,
    protections: Sequence[Collection[int]],
    protection: NDArray[np.int64],
    protected_bits: Floats,
    protected_values: Floats | None = None,
) -> tuple[FormatArrays, Floats]:
    """Formats with the noise that was measured in the model's attention, or that of keys that was
    read from the checkpoint, where it was, and the share of each component in protected layers
    [3, F]; what was measured or read counts its protected layers itself.

    Format f keeps the layers `protections[protection[f]]` at `protected_bits[f]`, values at
    `protected_values[f]` (None: the same).
    """
    shares = _shares(features.outliers, features.layers, protections)[:, protection]
    if features.attention is not None:
        kept = protected_bits, protected_bits if protected_values is None else protected_values
        measured = features.attention.noise(formats, protections, protection, kept)
        return replace(formats, measured=measured), np.zeros_like(shares)
    if features.ranges is None:
        return formats, shares
    read = features.ranges.noise(formats, protections, protection, protected_bits)
    coarser = formats.with_bits(_bits_of_lost_keys(formats), formats.v_bits)
    worst = features.ranges.noise(coarser, protections, protection, protected_bits)
    shares[OUTLIER] = 0.0
    return replace(formats, read=read, read_worst=worst), shares


def _bits_of_lost_keys(formats: FormatArrays) -> Floats:
    """Bits that rotated keys of a read checkpoint are worth at the lower end: a layer that 4 bits
    lose is not back with a fifth. llama.cpp's text and needles of Qwen2.5-Coder-0.5B lose at q5_0
    and q5_1 about what they lose at q4_0 and q4_1 (profiles/calibrations/llama_cpp.jsonl)."""
    near = (formats.rotate_k > 0) & (formats.k_bits > 4) & (formats.k_bits < 6)
    return np.where(near, 4.0, formats.k_bits)


def _shares(outliers: OutlierLayers, layers: int, protections: Sequence[Collection[int]]) -> Floats:
    """Share of each component (plain, outlier, value) that each protection keeps out: [3, P]."""
    shares = [protected_shares(outliers, layers, p) for p in protections]
    return np.array([[s.plain, s.outlier, s.value] for s in shares]).T
