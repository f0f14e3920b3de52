"""What formats make of one model's attention: measured on its own keys, queries and values.

A calibration has them in hand while it reads its text once (calibration/measure/read_attention.py).
They are rounded as each format rounds them, and what that does to the attention is a table:

    keys     KL of the attention with rounded keys from that without, in nats, mean over queries and
             heads
    values   the squared error of what attention gives, of its own square

each summed over the layers. So what no formula of a config foresees is known before any run: which
channels stand out, how often they share a group, what rotation and smoothing make of them. The
model's own noise (calibrated_noise.py) has the scales left to fit. Keys have two: a layer whose
attention moves by a nat is lost, and what more noise there costs differs by model, so that of k
nats k / (1 + k) are one component and the rest another. Windows of recent tokens are not in the
table: a text says of them what its own attention does, which looks less far than a task's.

A format that rounds no finer never has less noise within a table's axis of groups or bits.
"""

from collections.abc import Collection, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...light_dataclass import dataclass
from ..formula import BLOCK, CHANNEL, TENSOR, Floats, FormatArrays, span
from .key_ranges import BITS, TRANSFORMS, at_bits, at_structure, longer_blocks

KEY_STRUCTURES = ("g32", "g64", "g128", "head", "kc32", "kc128", "t32", "thead", "tensor")
"""Token scales by the channels that share one, channel scales by the tokens that do, tiles of TILE
tokens by their channels, one scale."""
VALUE_STRUCTURES = ("g32", "g64", "g128", "head", "t32", "thead", "tensor")
TURNED = ("plain", "rot")
TILE = 64
GROUPS = 32.0, 64.0, 128.0
MOST = 1e6
"""Noise that no table reaches."""


@dataclass(frozen=True, eq=False)
class AttentionNoise:
    """The tables of one model with L layers: `keys` [bits, transform, structure, L] and `values`
    [bits, turned, structure, L]."""

    keys: Floats
    values: Floats

    @classmethod
    def of(cls, numbers: Sequence[float], layers: int) -> Self:
        """From `numbers`, as `flat` gives them. Raises ValueError for numbers that are no table."""
        key_shape, value_shape = _shapes(layers)
        keys, values = int(np.prod(key_shape)), int(np.prod(value_shape))
        table = np.array(numbers, dtype=float)
        if table.shape != (keys + values,) or not ((table >= 0) & (table < MOST)).all():
            raise ValueError(f"no table of the attention of {layers} layers")
        return cls(table[:keys].reshape(key_shape), table[keys:].reshape(value_shape))

    @property
    def flat(self) -> list[float]:
        """All numbers in one list, three significant digits each."""
        every = [*self.keys.ravel().tolist(), *self.values.ravel().tolist()]
        return [float(f"{min(number, MOST / 2):.3g}") for number in every]

    def noise(
        self,
        formats: FormatArrays,
        protections: Sequence[Collection[int]],
        protection: NDArray[np.int64],
        protected_bits: tuple[Floats, Floats],
    ) -> Floats:
        """Noise under F formats without windows [3, F]: of keys as far as layers are not lost,
        of keys beyond that, of values. Format f keeps the layers `protections[protection[f]]` at
        `protected_bits[side][f]`."""
        layers = self.keys.shape[-1]
        # most formats protect alike: each set of layers counts once
        number: dict[tuple[int, ...], int] = {}
        places = [number.setdefault(tuple(chosen), len(number)) for chosen in protections]
        protection = np.array(places)[protection]
        inside = np.zeros((len(number), layers))
        for chosen, i in number.items():
            inside[i, [layer for layer in chosen if layer < layers]] = 1.0
        rotated = formats.rotate_k.astype(np.int64)
        key_at = 2 * formats.smoothing.astype(np.int64) + rotated, _structures(formats, True)
        value_at = formats.rotate_v.astype(np.int64), _structures(formats, False)
        blocks = _wider_tiles(formats)
        kept = self.keys / (1.0 + self.keys)
        sides = (
            (kept, key_at, formats.k_bits, protected_bits[0]),
            (self.keys - kept, key_at, formats.k_bits, protected_bits[0]),
            (self.values, value_at, formats.v_bits, protected_bits[1]),
        )
        return np.stack(
            [blocks * _side(*side, inside=inside, protection=protection) for side in sides]
        )


def _side(
    table: Floats,
    places: tuple[NDArray[np.int64], Floats],
    bits: Floats,
    protected_bits: Floats,
    *,
    inside: Floats,
    protection: NDArray[np.int64],
) -> Floats:
    spared = np.einsum("btsl,pl->pbts", table, inside)
    total = table.sum(axis=-1)[None]
    rest = np.maximum(total - spared, 0.0)

    def noise(structure: NDArray[np.int64]) -> Floats:
        at = places[0], structure
        plain: Floats = at_bits(rest[:, :, *at], protection, bits)
        return plain + at_bits(spared[:, :, *at], protection, protected_bits)

    return at_structure(noise, places[1])


def _structures(formats: FormatArrays, keys: bool) -> Floats:
    """The place of each format among KEY_STRUCTURES, or VALUE_STRUCTURES: between two of them for
    channels whose scales span more tokens than one has and fewer than the other."""
    names = KEY_STRUCTURES if keys else VALUE_STRUCTURES
    granularity, narrow = formats.granularity, formats.group <= GROUPS[0]
    found = np.searchsorted(GROUPS, formats.group)
    tiles = np.where(narrow, names.index("t32"), names.index("thead"))
    found = np.where(granularity == BLOCK, tiles, found)
    found = np.where(granularity == TENSOR, names.index("tensor"), found)
    if keys:
        channels = names.index("kc32") + longer_blocks(formats.block)
        found = np.where(granularity == CHANNEL, channels, found)
    return found.astype(float)


def _wider_tiles(formats: FormatArrays) -> Floats:
    """What tiles of other lengths than TILE have more or less: by the span of normal values."""
    ratio = span(formats.group * formats.block) / span(formats.group * TILE)
    return np.where(formats.granularity == BLOCK, ratio**2, 1.0)


def _shapes(layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (
        (len(BITS), len(TRANSFORMS), len(KEY_STRUCTURES), layers),
        (len(BITS), len(TURNED), len(VALUE_STRUCTURES), layers),
    )


def never_finer_worse(table: Floats, structures: Sequence[str]) -> Floats:
    """Each entry at least that of more bits, of narrower groups and of shorter blocks."""
    table = np.maximum.accumulate(table[::-1], axis=0)[::-1].copy()
    for finer, coarser in _COARSER:
        if coarser in structures:
            at, below = structures.index(coarser), structures.index(finer)
            table[:, :, at] = np.maximum(table[:, :, at], table[:, :, below])
    return table


_COARSER = (
    *(("g32", "g64"), ("g64", "g128"), ("g128", "head"), ("g32", "t32"), ("t32", "thead")),
    *(("head", "thead"), ("kc32", "kc128")),
)
"""Pairs of structures of which the second shares more; what narrow ones say passes on."""
