"""A space of configurations, held as three axes: weights, KV formats and prefill chunks.

    weights x KV formats x prefill chunks

A KV format is a layout (granularity, group, token block, smoothing, rotation, window of recent
tokens) with bits for K and V and perhaps protected layers. Memory, accuracy and latency are
computed on the axes and broadcast; a Configuration is made only of what is shown to somebody.
"""

from dataclasses import field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..light_dataclass import dataclass
from .configuration import Configuration, Granularity, Protection
from .named import kv_format, weight_format

PROTECTED_BITS = 8
"""K and V bits of protected layers."""
USUAL_CHUNKS = 512, 4096
"""Tokens between which servers choose their prefill chunks."""

Ints = npt.NDArray[np.int64]
PLAIN: Ints = np.array([[0, 16, 16, 0]])
"""The format of an unquantized cache, as a row of Space's four arrays."""


@dataclass(frozen=True, slots=True)
class KVLayout:
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
    layouts: tuple[KVLayout, ...]
    protections: tuple[tuple[int, ...], ...]
    """Layers kept at PROTECTED_BITS; the first is no layer."""
    layout: Ints = field(repr=False)
    k_bits: Ints = field(repr=False)
    v_bits: Ints = field(repr=False)
    protection: Ints = field(repr=False)
    weight_formats: tuple[str, ...] = ()
    """The name of each of `weights` ("" where bits say all), whose bits it then is; () = none."""
    kv_formats: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The names of K's and V's format of each format, as Configuration has them; () = none."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.weights), len(self.layout), len(self.chunks)

    def __len__(self) -> int:
        w, f, c = self.shape
        return w * f * c

    def configuration(self, index: int) -> Configuration:
        """The configuration at flat `index`."""
        w, f, c = (int(i) for i in np.unravel_index(index, self.shape))
        return self.at(self.weights[w], f, self.chunks[c], self.weight_name(w))

    def weight_name(self, w: int) -> str:
        """The name of the weights' format, "" where bits say all."""
        return self.weight_formats[w] if self.weight_formats else ""

    def at(
        self, weight_bits: int, f: int, chunk: int | None, weight_format: str = ""
    ) -> Configuration:
        """Format `f` with these weights and this chunk."""
        keys, values = self.kv_formats[f] if self.kv_formats else ("", "")
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
            weight_format=weight_format,
            k_format=keys,
            v_format=values,
        )

    def of_layout(self, name: str) -> npt.NDArray[np.generic]:
        """A field of every format's layout as an array [F]; None becomes 0."""
        values = [getattr(layout, name) or 0 for layout in self.layouts]
        return np.array(values)[self.layout]

    def _of_weights(self) -> Ints:
        """Halvings of the weights' bits, or steps from what people run of GGUF files."""
        bits = np.array(self.weights)
        steps = _halvings(bits)
        rows = [weight_format(name) for name in self.weight_formats if name]
        if any(row is not None and row.of_files for row in rows):
            return np.where(bits >= 16, 1, np.where(bits >= 5, 0, steps))
        if not rows:
            return steps
        named = [weight_format(name) if name else None for name in self.weight_formats]
        return steps + np.array([row is not None and not row.at_start for row in named])

    def _of_values(self) -> Ints:
        """Halvings of the values' bits [F]. A server names both sides by one flag: nothing then,
        or a step where scales a token and head leave it one backend."""
        steps = _halvings(self.v_bits)
        for f, (keys, values) in enumerate(self.kv_formats):
            row = kv_format(values) if keys == values else None
            if row is not None and not row.of_files:
                steps[f] = not row.block
        return steps

    @cached_property
    def complexity(self) -> Ints:
        """How far a point is from what people run, [W, F, C]. Between equals, the least is
        recommended.

            8  K and V that differ
            4  tiles or per-tensor scales; protected layers
            2  scales per channel; a group size; smoothing; rotation; a window of recent tokens
            2  each halving of the bits of weights, of keys, of values; of GGUF files, those of 5
               to 8 bits are what people run, and 16 bits are one step from them; a server's cache
               has one flag for both sides (a step more with scales a token and head), and weights
               that it does not make at its start are a checkpoint of their own, a step more
            1  a chunk
        """
        common = Granularity.PER_TOKEN, Granularity.PER_CHANNEL
        weight = [
            common.index(x.granularity) if x.granularity in common else 2 for x in self.layouts
        ]
        of_format = _halvings(self.k_bits) + self._of_values()
        of_format += 4 * (self.k_bits != self.v_bits) + 2 * (self.protection > 0)
        of_format += np.array(weight)[self.layout]
        for name in ("group_size", "smoothing", "rotation", "residual"):
            of_format += self.of_layout(name) != 0
        of_weights = self._of_weights()
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


def _halvings(bits: Ints) -> Ints:
    """16, 8, 4, 2 bits -> 0, 1, 2, 3; what lies between, the nearest."""
    return np.round(4 - np.log2(bits)).astype(np.int64)
