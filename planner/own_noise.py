"""A measured model's own noise: the formula, with every number in it free to be the model's.

    retention = 1 / (1 + D^gamma_kind) * 1 / (1 + W e^weight_kind)
    D = sum over components of noise_c(format) * e^(scale_c + kind + [values] value_kind + table_c)

Rows of many models share their coefficients (accuracy_model.py). A model with enough rows of its
own shows where those do not fit it: its own gains of rotation, smoothing and channels, its own
steepness for each kind of task, its own growth with the context, and tables of what is left: for
each component one deviation for each granularity, smoothing and rotation and each pair of them,
for each side one for the bits with each of these, and one for every format that was run. All are
drawn to the shared fit by their priors, so that a model with few rows has the shared fit and one
with hundreds its own.

Monotone in bits by construction, as the shared fit is: what depends on bits, and what a format
that was run adds, are bounded by 0.8 either way, together less than half of what two bits are
worth (ln 25), so that neither can turn the order of bits around. Slopes are positive, so that
finer groups, smaller blocks and longer windows never lose among formats that were not run.
Contexts beyond 4,096 tokens never gain; below, a model may be better or worse than there (its
tasks are denser).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from .quantization_noise import (
    BLOCK,
    CHANNEL,
    COEFFICIENTS,
    TENSOR,
    TOKEN,
    Floats,
    Formats,
    noise,
    relative_spans,
    weight_noise,
)
from .retention import cache_retention, power_of, weight_retention

Ints = NDArray[np.int64]
Places = Mapping[str, Ints]
BOUND = 0.8
SLOPES = (
    *("group_key", "group_value", "context_value", "residual_value", "tile_value"),
    *("span_key", "span_value"),
)
"""More positive coefficients, of which the shared fit has one or none:

    group_key, group_value   log noise added by each doubling of the group, beside the span's
    context_value            as `context`, for values
    residual_value           as `residual`, for values
    tile_value               as `tile`, for values
    span_key, span_value     how the range grows with the values that share a scale: its power,
                             relative to that of normal values
"""
SCALES = ("plain", "outlier", "value", "weight")
KIND_EFFECTS = ("kind", "value", "gamma", "weight", "below")
"""What differs between kinds of tasks: the noise of all of the cache, of the values beside that,
log steepness, the noise of the weights, and the slope of log noise with doublings of the context
below 4,096 tokens (`below` alone has a value for the reference kind too)."""
_KEY_AXES: Mapping[str, Sequence[int]] = {
    "granularity": (TOKEN, CHANNEL, BLOCK, TENSOR),
    "smoothing": (0, 1),
    "rotation": (0, 1),
}
_VALUE_AXES: Mapping[str, Sequence[int]] = {
    "granularity": (TOKEN, BLOCK, TENSOR),
    "rotation": (0, 1),
}
_BITS: Mapping[str, Sequence[int]] = {"bits": (2, 4, 8)}
_REFERENCE_CONTEXT = 4096.0


@dataclass(frozen=True)
class Table:
    """Deviations of log noise over one axis of a format, or two; `name` is the component or, for
    tables that are bounded, the side."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]

    def entries(self, values: Mapping[str, Sequence[int]]) -> list[str]:
        found = product(*(values[axis] for axis in self.axes))
        return [
            f"{self.name}:" + ",".join(f"{a}={x}" for a, x in zip(self.axes, entry, strict=True))
            for entry in found
        ]

    def place(self, places: Places) -> Ints:
        """Number of the entry of each format."""
        found: Ints = np.ravel_multi_index(tuple(places[axis] for axis in self.axes), self.shape)
        return found


def _tables() -> dict[Table, list[str]]:
    """All tables with the names of their entries."""
    found: dict[Table, list[str]] = {}
    for name, axes in (("plain", _KEY_AXES), ("outlier", _KEY_AXES), ("value", _VALUE_AXES)):
        for chosen in (*((axis,) for axis in axes), *combinations(axes, 2)):
            table = Table(name, chosen, tuple(len(axes[axis]) for axis in chosen))
            found[table] = table.entries(axes)
    for name, rest in (("key_bits", _KEY_AXES), ("value_bits", _VALUE_AXES)):
        axes = {**_BITS, **rest}
        for chosen in (("bits",), *(("bits", axis) for axis in rest)):
            table = Table(name, chosen, tuple(len(axes[axis]) for axis in chosen))
            found[table] = table.entries(axes)
    return found


TABLES = _tables()
PARTS = (("plain", "key_bits"), ("outlier", "key_bits"), ("value", "value_bits"))
"""The tables of each component: free ones and bounded ones."""


def names_of(kinds: Sequence[str], reference: str) -> list[str]:
    """Names of all parameters, in the order of their vector."""
    return [
        *COEFFICIENTS,
        *SLOPES,
        *(f"scale:{name}" for name in SCALES),
        *(
            f"{effect}:{kind}"
            for kind in kinds
            for effect in KIND_EFFECTS
            if kind != reference or effect == "below"
        ),
        *(name for entries in TABLES.values() for name in entries),
    ]


@dataclass(frozen=True, eq=False)
class Layer:
    """Cache formats [N] as some of a model's layers keep them, where they stand on the tables'
    axes, and each component's share in those layers [3, N]."""

    formats: Formats
    keys: Places
    values: Places
    codes: Ints
    share: Floats

    @classmethod
    def of(cls, formats: Formats, share: Floats) -> "Layer":
        def bits(of: Floats) -> Ints:
            # float formats count as the nearest integer one; 16 bits have no noise to look up
            return np.clip(np.round(np.log2(of)), 1, 3).astype(np.int64) - 1

        kind = formats.granularity
        keys = {
            "bits": bits(formats.k_bits),
            "granularity": kind,
            "smoothing": formats.smoothing.astype(np.int64),
            "rotation": formats.rotate_k.astype(np.int64),
        }
        values = {
            "bits": bits(formats.v_bits),
            # per-channel keys keep per-token values
            "granularity": np.select([kind == BLOCK, kind == TENSOR], [1, 2], 0),
            "rotation": formats.rotate_v.astype(np.int64),
        }
        return cls(formats, keys, values, codes_of(formats), share)

    def places(self, name: str) -> Places:
        return self.values if name.startswith("value") else self.keys


def codes_of(formats: Formats) -> Ints:
    """A number for each cache format, the same for the same format."""
    columns = (
        *(formats.k_bits, formats.v_bits, formats.granularity, formats.group, formats.block),
        *(formats.smoothing, formats.rotate_k, formats.rotate_v, formats.residual),
    )
    found = np.zeros(formats.k_bits.shape, dtype=np.int64)
    for column in columns:
        # half bits of float formats count; windows beyond the base wrap without harm
        found = found * 1031 + np.round(2 * np.asarray(column, dtype=float)).astype(np.int64)
    return found


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a prediction of N cache formats needs: the layers (all, or protected ones apart),
    tokens [N], and the share of layers that cache anything."""

    layers: tuple[Layer, ...]
    tokens: Floats
    fraction: float

    @classmethod
    def of(
        cls,
        formats: Formats,
        protected: Formats,
        shares: Floats,
        tokens: Floats | float,
        fraction: float,
    ) -> "Inputs":
        """`shares` [3, N] is each component's share in layers that keep `protected`."""
        wide = np.broadcast_to(np.asarray(tokens, dtype=float), formats.k_bits.shape)
        layers = [Layer.of(formats, 1.0 - shares)]
        if shares.any():
            layers.append(Layer.of(protected, shares))
        return cls(tuple(layers), wide, fraction)


class OwnNoise:
    """Parameters by name -> predictions. Numbers are as fitted: logarithms where they are
    positive, see `names_of`."""

    def __init__(self, values: Mapping[str, float], formats: Mapping[int, float]) -> None:
        """`formats` are the deviations of formats that were run, by their codes."""
        self._values = values
        self._codes = np.array(sorted(formats), dtype=np.int64)
        self._of_code = np.array([formats[code] for code in sorted(formats)])
        self._positive = {name: float(np.exp(values[name])) for name in (*COEFFICIENTS, *SLOPES)}
        self._entries = {
            table: np.array([values[name] for name in names]) for table, names in TABLES.items()
        }

    def components(self, inputs: Inputs) -> Floats:
        """Noise of plain keys, outlier keys and values at the model's scales, [3, N]."""
        found: Floats = np.sum([self.of_layer(layer, inputs) for layer in inputs.layers], axis=0)
        return found

    def of_layer(self, layer: Layer, inputs: Inputs) -> Floats:
        """What these layers add to `components`."""
        slopes, formats = self._positive, layer.formats
        above = np.log2(np.maximum(inputs.tokens, _REFERENCE_CONTEXT) / _REFERENCE_CONTEXT)
        channel, tensor = formats.granularity == CHANNEL, formats.granularity == TENSOR
        wide = np.where(tensor, 0.0, np.log2(formats.group / 64.0))
        tiles = np.where(channel | tensor, 0.0, np.log2(formats.block))
        window = np.log1p(formats.residual / 32.0)
        key = slopes["group_key"] * np.where(channel, 0.0, wide) + slopes["context"] * above
        value = slopes["group_value"] * wide + slopes["context_value"] * above
        value = value + (slopes["residual"] - slopes["residual_value"]) * window
        value = value + (slopes["tile_value"] - slopes["tile"]) * tiles
        spans = [np.log(span) for span in relative_spans(formats)]
        plain = key + 2 * (slopes["span_key"] - 1) * spans[0]
        outlier = np.where(channel, plain, key)
        value = value + 2 * (slopes["span_value"] - 1) * spans[1]
        own = _bounded(self.of_format(layer))
        logs = [
            log
            + own
            + self._values[f"scale:{SCALES[i]}"]
            + self.deviation(PARTS[i][0], layer)
            + _bounded(self.deviation(PARTS[i][1], layer))
            for i, log in enumerate((plain, outlier, value))
        ]
        unit = noise(formats, slopes, inputs.tokens)
        found: Floats = unit * np.exp(np.stack(logs)) * layer.share * inputs.fraction
        return found

    def of_format(self, layer: Layer) -> Floats:
        """The deviation of every format, before its bound; 0 for those that were not run [N]."""
        if not len(self._codes):
            return np.zeros(len(layer.codes))
        place = np.searchsorted(self._codes, layer.codes).clip(max=len(self._codes) - 1)
        found: Floats = np.where(self._codes[place] == layer.codes, self._of_code[place], 0.0)
        return found

    def deviation(self, name: str, layer: Layer) -> Floats:
        """The sum of the tables of one name [N]."""
        places = layer.places(name)
        found: Floats = np.sum(
            [e[t.place(places)] for t, e in self._entries.items() if t.name == name], axis=0
        )
        return found

    def effect(self, effect: str, kind: str) -> float:
        """0 for the reference kind, and for kinds that no row was about."""
        return self._values.get(f"{effect}:{kind}", 0.0)

    def gamma(self, kind: str) -> float:
        return power_of(kind, self._positive["gamma"] * float(np.exp(self.effect("gamma", kind))))

    def kind_factors(self, kind: str, tokens: Floats) -> Floats:
        """What a kind of task makes of each component's noise, [3, N]."""
        below = np.log2(np.minimum(tokens, _REFERENCE_CONTEXT) / _REFERENCE_CONTEXT)
        every = self.effect("kind", kind) + self.effect("below", kind) * below
        return np.exp(np.stack([every, every, every + self.effect("value", kind)]))

    def cache_retention(
        self, components: Floats, tokens: Floats, kind: str, shift: float = 0.0
    ) -> Floats:
        """Retention left by the cache [N]; `shift` is added to the log noise."""
        total = (components * self.kind_factors(kind, tokens)).sum(axis=0) * np.exp(shift)
        return cache_retention(total, self.gamma(kind))

    def weight_retention(self, bits: Floats, kind: str, shift: float = 0.0) -> Floats:
        """Retention left by weight formats alone, one for each entry of `bits`."""
        scale = self._values["scale:weight"] + self.effect("weight", kind) + shift
        unit = weight_noise(bits, self._positive["weight_8bit"])
        return weight_retention(unit * float(np.exp(scale)))


def _bounded(log: Floats) -> Floats:
    found: Floats = BOUND * np.tanh(log / BOUND)
    return found
