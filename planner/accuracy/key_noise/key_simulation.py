"""The table of KeyRanges, made from one model's key biases and norms: key_ranges.py says why.

Keys and queries of each layer are normal, as wide as a few rows of their projections make them (the
gains of the norm before included), the norm with its gains or the bias comes on top, RoPE turns
them. What formats share and round is done to them as the cache does it. Where tokens have scales of
their own, the keys stand all over a text, since a bias that RoPE turns meets every angle there;
where neighbours share a scale by channel, they stand side by side. The same model gives the same
table on every machine.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...light_dataclass import dataclass
from .key_ranges import BITS, STRUCTURES, TRANSFORMS, KeyRanges

Floats32 = NDArray[np.float32]
TOKENS = 128
"""Keys, as many as the longest block of channel scales here."""
QUERIES = 16
SPAN = 4096
"""Tokens of a text, over all of which keys of token scales stand, and queries over its later half.
At 1,024 the variance of Qwen2.5-Coder's first layer is half to a third of what it is at 4,096."""
FIRST = 1000
"""Position of the first key of a block of channel scales."""
QUIET_BIAS, QUIET_GAIN = 2.0, 2.0
"""Largest bias in standard deviations of a channel, and largest gain against their root mean
square, below which keys are like any model's: 128 normal values reach 2.6 either way."""
_GROUPS = {"g16": 16, "g32": 32, "g64": 64, "g128": 128}
_BLOCKS = {"kc32": 32, "kc128": 128}


@dataclass(frozen=True, eq=False)
class KeyLayer:
    """What a checkpoint says of one layer's keys and queries: biases [heads, d], gains of their
    norms [d], RoPE's base and the channels it turns, and the scale of their products."""

    kv_heads: int
    query_heads: int
    dim: int
    key_spread: float = 1.0
    query_spread: float = 1.0
    """Standard deviations of a channel beside its bias: 0.3 to 2 in the models looked at."""
    key_bias: Floats32 | None = None
    query_bias: Floats32 | None = None
    key_gain: Floats32 | None = None
    query_gain: Floats32 | None = None
    theta: float = 10000.0
    rotary: int = 0
    scale: float = 0.0

    @property
    def tells(self) -> bool:
        """Whether there is anything to foresee: else keys are like any model's."""
        return self.key_bias is not None or self.key_gain is not None

    @property
    def is_quiet(self) -> bool:
        """Whether no channel stands out: most layers, which then need not be simulated."""
        out = 0.0
        if self.key_bias is not None:
            out = float(np.abs(self.key_bias).max()) / self.key_spread / QUIET_BIAS
        if self.key_gain is not None:
            widest = np.abs(self.key_gain).max() / np.sqrt((self.key_gain**2).mean() + 1e-12)
            out = max(out, float(widest) / QUIET_GAIN)
        return out < 1.0


def key_ranges(layers: Sequence[KeyLayer], source: str) -> KeyRanges:
    """The table of a model with these layers that cache keys, in their order."""
    found = np.stack([_beyond_normal(layer, seed) for seed, layer in enumerate(layers)], axis=-1)
    return KeyRanges(_never_finer_worse(found), source)


def _beyond_normal(layer: KeyLayer, seed: int) -> NDArray[np.float64]:
    """V of one layer beyond that of normal keys [bits, transform, structure]."""
    normal = _normal(layer)
    wide = 1.0 if layer.key_gain is None else _width(layer) / _width(normal)
    if layer.is_quiet:
        if wide <= 1.0:
            return np.zeros((len(BITS), len(TRANSFORMS), len(STRUCTURES)))
        return (wide**2 - 1.0) * _layer(normal, seed)
    return np.maximum(_layer(layer, seed) - _layer(normal, seed), 0.0)


def _normal(layer: KeyLayer) -> KeyLayer:
    """The layer with normal keys, any model's, whose noise is the plain component's.

    A projection makes keys about as wide in every model, so biased keys are held to normal ones as
    wide as they are beside their bias. Norms with gains make them as wide as the gains say, in
    Gemma 3 with products eight times the variance of others': they are held to a width of one.
    """
    plain = replace(layer, key_bias=None, key_gain=None)
    if layer.key_gain is None:
        return plain
    return replace(
        plain, query_bias=None, query_gain=None, key_spread=1.0, query_spread=1.0, scale=0.0
    )


def _width(layer: KeyLayer) -> float:
    """Standard deviation of the products of a layer's keys and queries."""
    key, query = (
        spread if gain is None else float(np.sqrt((gain**2).mean()))
        for spread, gain in (
            (layer.key_spread, layer.key_gain),
            (layer.query_spread, layer.query_gain),
        )
    )
    return key * query * (layer.scale or layer.dim**-0.5) * layer.dim**0.5


def _layer(layer: KeyLayer, seed: int) -> NDArray[np.float64]:
    """V of one layer [bits, transform, structure]."""
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((layer.kv_heads, TOKENS, layer.dim)).astype(np.float32)
    queries = rng.standard_normal((layer.query_heads, QUERIES, layer.dim)).astype(np.float32)
    keys, queries = keys * np.float32(layer.key_spread), queries * np.float32(layer.query_spread)
    keys = _made(keys, layer.key_bias, layer.key_gain)
    queries = _made(queries, layer.query_bias, layer.query_gain)
    turned = layer.rotary or layer.dim
    queries = _rope(queries, rng.integers(SPAN // 2, SPAN, QUERIES), layer.theta, turned)
    queries = queries.reshape(layer.kv_heads, -1, layer.dim) * (layer.scale or layer.dim**-0.5)
    everywhere = _rope(keys, np.arange(TOKENS) * (SPAN // TOKENS), layer.theta, turned)
    in_a_block = _rope(keys, FIRST + np.arange(TOKENS), layer.theta, turned)
    table = np.zeros((len(BITS), len(TRANSFORMS), len(STRUCTURES)))
    for t, transform in enumerate(TRANSFORMS):
        for s, structure in enumerate(STRUCTURES):
            seen, asked = in_a_block if structure in _BLOCKS else everywhere, queries
            if "smooth" in transform:
                seen = seen - seen.mean(axis=1, keepdims=True)
            if "rot" in transform:
                seen, asked = _hadamard(seen), _hadamard(asked)
            for b, bits in enumerate(BITS):
                error = _error(seen, bits, structure)
                products = np.einsum("hqd,htd->hqt", asked, error)
                table[b, t, s] = products.var(axis=-1).mean()
    return table


def _made(x: Floats32, bias: Floats32 | None, gain: Floats32 | None) -> Floats32:
    if bias is not None:
        x = x + bias[:, None, :]
    if gain is not None:
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True)) * gain
    return x


def _rope(x: Floats32, positions: NDArray[np.int64], theta: float, turned: int) -> Floats32:
    """Halves of the first `turned` channels turned against each other, as transformers does."""
    half = turned // 2
    angle = positions[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    a, b, rest = x[..., :half], x[..., half:turned], x[..., turned:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def _hadamard(x: Floats32) -> Floats32:
    """Orthonormal Hadamard transform of each head, of its largest power of two."""
    whole = x.shape[-1]
    size = whole & -whole
    y = x.reshape(*x.shape[:-1], whole // size, size)
    step = 1
    while step < size:
        pairs = y.reshape(*y.shape[:-1], size // (2 * step), 2, step)
        y = np.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]], -2)
        y = y.reshape(*x.shape[:-1], whole // size, size)
        step *= 2
    return (y / np.float32(size**0.5)).reshape(x.shape)


def _error(keys: Floats32, bits: int, structure: str) -> Floats32:
    heads, tokens, dim = keys.shape
    if structure in _BLOCKS:
        parts = keys.reshape(heads, -1, _BLOCKS[structure], dim)
        return (_rounded(parts, bits, axis=2) - parts).reshape(keys.shape)
    group = int(_GROUPS.get(structure) or dim)
    if group > dim or dim % group:
        group = dim
    parts = keys.reshape(heads, tokens, -1, group)
    return (_rounded(parts, bits, axis=3) - parts).reshape(keys.shape)


def _rounded(x: Floats32, bits: int, axis: int) -> Floats32:
    low, high = x.min(axis=axis, keepdims=True), x.max(axis=axis, keepdims=True)
    step = np.maximum((high - low) / (2**bits - 1), np.float32(1e-20))
    return np.asarray(np.round((x - low) / step) * step + low)


def _never_finer_worse(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each entry at least that of more bits, of finer groups and of shorter blocks."""
    table = np.maximum.accumulate(table[::-1], axis=0)[::-1].copy()
    token = len(_GROUPS) + 1
    table[:, :, :token] = np.maximum.accumulate(table[:, :, :token], axis=2)
    table[:, :, token:] = np.maximum.accumulate(table[:, :, token:], axis=2)
    return table
