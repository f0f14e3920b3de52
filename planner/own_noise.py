"""A measured model's own noise: the formula, with every number in it free to be the model's.

    retention = 1 / (1 + D^gamma_kind) * 1 / (1 + W e^weight_kind)
    D = sum over components of noise_c(format) * e^(scale_c + kind + [values] value_kind + table_c)

Rows of many models share their coefficients (accuracy_model.py). A model with enough rows of its
own shows where those do not fit it: its own gains of rotation, smoothing and channels, its own
steepness for each kind of task, its own growth with the context, for keys and values apart, and a
table of what is left: one deviation for each value of bits, granularity, smoothing and rotation
and for each pair of them. All are drawn to the shared fit by their priors, so that a model with
few rows has the shared fit and one with hundreds its own.

Monotone by construction, as the shared fit is: slopes are positive, and a deviation is bounded by
1.5 either way, less than half of what two bits are worth (ln 25), so that no table can turn the
order of bits around; group, block, window and context do not enter it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

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
    weight_noise,
)
from .retention import cache_retention, power_of, weight_retention

Ints = NDArray[np.int64]
BOUND = 1.5
SLOPES = ("group_key", "group_value", "context_value", "residual_value")
"""More positive coefficients, of which the shared fit has one or none:

    group_key, group_value   log noise added by each doubling of the group, beside the span's
    context_value            as `context`, for values; both reach below 4,096 tokens here
    residual_value           as `residual`, for values
"""
SCALES = ("plain", "outlier", "value", "weight")
KIND_EFFECTS = ("kind", "value", "gamma", "weight")
"""What differs between kinds of tasks: the noise of all of the cache, of the values beside that,
log steepness, and the noise of the weights."""
_AXES: Mapping[str, Mapping[str, Sequence[int]]] = {
    "key": {
        "bits": (2, 4, 8),
        "granularity": (TOKEN, CHANNEL, BLOCK, TENSOR),
        "smoothing": (0, 1),
        "rotation": (0, 1),
    },
    "value": {"bits": (2, 4, 8), "granularity": (TOKEN, BLOCK, TENSOR), "rotation": (0, 1)},
}
_REFERENCE_CONTEXT = 4096.0


PAIRS = {side: tuple(combinations(axes, 2)) for side, axes in _AXES.items()}


def names_of(kinds: Sequence[str]) -> list[str]:
    """Names of all parameters, in the order of their vector. `kinds` without the reference."""
    tables = [
        name
        for side, axes in _AXES.items()
        for entry in (*((axis,) for axis in axes), *PAIRS[side])
        for name in _entries(side, entry)
    ]
    return [
        *COEFFICIENTS,
        *SLOPES,
        *(f"scale:{name}" for name in SCALES),
        *(f"{effect}:{kind}" for kind in kinds for effect in KIND_EFFECTS),
        *tables,
    ]


def _entries(side: str, axes: Sequence[str]) -> list[str]:
    """Names of the entries of a table over one or two axes."""
    values = product(*(_AXES[side][axis] for axis in axes))
    return [
        f"{side}:" + ",".join(f"{axis}={x}" for axis, x in zip(axes, entry, strict=True))
        for entry in values
    ]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Cache formats [N] of a model with what a prediction needs beside them: how protected layers
    keep them, each component's share in those layers [3, N], tokens [N], the share of layers that
    cache anything, and where formats stand on the axes of the tables."""

    formats: Formats
    protected: Formats
    shares: Floats
    tokens: Floats
    fraction: float
    places: Mapping[str, Mapping[str, Ints]]
    protected_places: Mapping[str, Mapping[str, Ints]]

    @classmethod
    def of(
        cls,
        formats: Formats,
        protected: Formats,
        shares: Floats,
        tokens: Floats | float,
        fraction: float,
    ) -> "Inputs":
        wide = np.broadcast_to(np.asarray(tokens, dtype=float), formats.k_bits.shape)
        places = {side: _places(side, formats) for side in _AXES}
        kept = {side: _places(side, protected) for side in _AXES} if shares.any() else places
        return cls(formats, protected, shares, wide, fraction, places, kept)


def _places(side: str, formats: Formats) -> dict[str, Ints]:
    """Index of each format on each axis of a side."""
    key, kind = side == "key", formats.granularity
    bits = formats.k_bits if key else formats.v_bits
    # float formats of published rows count as the nearest integer one; 16 bits have no noise
    found = {"bits": np.clip(np.round(np.log2(bits)), 1, 3).astype(np.int64) - 1}
    if key:
        found |= {"granularity": kind, "smoothing": formats.smoothing.astype(np.int64)}
        return found | {"rotation": formats.rotate_k.astype(np.int64)}
    # per-channel keys keep per-token values
    found["granularity"] = np.select([kind == BLOCK, kind == TENSOR], [1, 2], 0)
    return found | {"rotation": formats.rotate_v.astype(np.int64)}


class OwnNoise:
    """Parameters by name -> predictions. Numbers are as fitted: logarithms where they are
    positive, see `names_of`."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values
        self._positive = {name: float(np.exp(values[name])) for name in (*COEFFICIENTS, *SLOPES)}
        self._tables = {
            side: {
                axes: self._table(side, axes)
                for axes in (*((a,) for a in _AXES[side]), *PAIRS[side])
            }
            for side in _AXES
        }

    def _table(self, side: str, axes: tuple[str, ...]) -> Floats:
        found = np.array([self._values[name] for name in _entries(side, axes)])
        return found.reshape([len(_AXES[side][axis]) for axis in axes])

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> "OwnNoise":
        """From a fit's JSON."""
        return cls(payload["values"])

    def components(self, inputs: Inputs) -> Floats:
        """Noise of plain keys, outlier keys and values at the model's scales, [3, N]."""
        unit = self._unit(inputs, inputs.formats, inputs.places)
        if inputs.shares.any():
            protected = self._unit(inputs, inputs.protected, inputs.protected_places)
            unit = unit * (1.0 - inputs.shares) + protected * inputs.shares
        return unit * inputs.fraction

    def _unit(
        self, inputs: Inputs, formats: Formats, places: Mapping[str, Mapping[str, Ints]]
    ) -> Floats:
        slopes, tokens = self._positive, inputs.tokens
        doublings = np.log2(tokens / _REFERENCE_CONTEXT)
        wide = np.where(formats.granularity == TENSOR, 0.0, np.log2(formats.group / 64.0))
        key_wide = np.where(formats.granularity == CHANNEL, 0.0, wide)
        window = np.log1p(formats.residual / 32.0)
        key, value = (self._deviation(side, places[side]) for side in ("key", "value"))
        key = key + slopes["group_key"] * key_wide + slopes["context"] * doublings
        value = value + slopes["group_value"] * wide + slopes["context_value"] * doublings
        value = value + (slopes["residual"] - slopes["residual_value"]) * window
        scales = [self._values[f"scale:{name}"] for name in SCALES[:3]]
        logs = np.stack([key + scales[0], key + scales[1], value + scales[2]])
        found: Floats = noise(formats, slopes, tokens) * np.exp(logs)
        return found

    def _deviation(self, side: str, places: Mapping[str, Ints]) -> Floats:
        """What the tables add to the log noise of a side, within BOUND."""
        entries = [
            table[tuple(places[axis] for axis in axes)]
            for axes, table in self._tables[side].items()
        ]
        found: Floats = BOUND * np.tanh(np.sum(entries, axis=0) / BOUND)
        return found

    def effect(self, effect: str, kind: str) -> float:
        """0 for the reference kind, and for kinds that no row was about."""
        return self._values.get(f"{effect}:{kind}", 0.0)

    def gamma(self, kind: str) -> float:
        return power_of(kind, self._positive["gamma"] * float(np.exp(self.effect("gamma", kind))))

    def cache_retention(self, components: Floats, kind: str, shift: float = 0.0) -> Floats:
        """Retention left by the cache [N]; `shift` is added to the log noise."""
        scale = np.exp(self.effect("kind", kind) + shift)
        values = np.exp(self.effect("value", kind))
        total = scale * (components[0] + components[1] + values * components[2])
        return cache_retention(total, self.gamma(kind))

    def weight_retention(self, bits: Floats, kind: str, shift: float = 0.0) -> Floats:
        """Retention left by weight formats alone, one for each entry of `bits`."""
        scale = self._values["scale:weight"] + self.effect("weight", kind) + shift
        unit = weight_noise(bits, self._positive["weight_8bit"])
        return weight_retention(unit * float(np.exp(scale)))
