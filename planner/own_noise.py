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


def _table(side: str) -> list[tuple[tuple[str, int], ...]]:
    """What each entry of a side's table is about: one axis at a value, or two."""
    axes = _AXES[side]
    single = [((name, value),) for name, values in axes.items() for value in values]
    double = [
        ((a, x), (b, y)) for a, b in combinations(axes, 2) for x, y in product(axes[a], axes[b])
    ]
    return [*single, *double]


TABLES = {side: _table(side) for side in _AXES}


def names_of(kinds: Sequence[str]) -> list[str]:
    """Names of all parameters, in the order of their vector. `kinds` without the reference."""
    return [
        *COEFFICIENTS,
        *SLOPES,
        *(f"scale:{name}" for name in SCALES),
        *(f"{effect}:{kind}" for kind in kinds for effect in KIND_EFFECTS),
        *(
            f"{side}:" + ",".join(f"{axis}={value}" for axis, value in entry)
            for side, entries in TABLES.items()
            for entry in entries
        ),
    ]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Cache formats [N] of a model with what a prediction needs beside them: how protected layers
    keep them, each component's share in those layers [3, N], tokens [N], and which entries of the
    tables apply [N, entries], of the formats and of the protected ones."""

    formats: Formats
    protected: Formats
    shares: Floats
    tokens: Floats
    tables: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]
    fraction: float

    @classmethod
    def of(
        cls, formats: Formats, protected: Formats, shares: Floats, tokens: Floats, fraction: float
    ) -> "Inputs":
        tables = {side: (_entries(side, formats), _entries(side, protected)) for side in _AXES}
        wide = np.broadcast_to(np.asarray(tokens, dtype=float), formats.k_bits.shape)
        return cls(formats, protected, shares, wide, tables, fraction)


def _entries(side: str, formats: Formats) -> NDArray[np.bool_]:
    key = side == "key"
    granularity = formats.granularity
    columns = {
        # float formats of published rows count as the nearest integer one
        "bits": np.clip(2 ** np.round(np.log2(formats.k_bits if key else formats.v_bits)), 2, 16),
        # per-channel keys keep per-token values
        "granularity": granularity if key else np.where(granularity == CHANNEL, TOKEN, granularity),
        "smoothing": formats.smoothing,
        "rotation": formats.rotate_k if key else formats.rotate_v,
    }
    found = [np.all([columns[a] == x for a, x in entry], axis=0) for entry in TABLES[side]]
    return np.stack(found, axis=1)


class OwnNoise:
    """Parameters by name -> predictions. Numbers are as fitted: logarithms where they are
    positive, see `names_of`."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values
        self._positive = {name: float(np.exp(values[name])) for name in (*COEFFICIENTS, *SLOPES)}
        self._tables = {
            side: np.array(
                [v for name, v in values.items() if name.startswith(f"{side}:") and ("=" in name)]
            )
            for side in _AXES
        }

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> "OwnNoise":
        """From a fit's JSON."""
        return cls(payload["values"])

    def components(self, inputs: Inputs) -> Floats:
        """Noise of plain keys, outlier keys and values at the model's scales, [3, N]."""
        unit = self._unit(inputs, inputs.formats, 0)
        if inputs.shares.any():
            protected = self._unit(inputs, inputs.protected, 1)
            unit = unit * (1.0 - inputs.shares) + protected * inputs.shares
        return unit * inputs.fraction

    def _unit(self, inputs: Inputs, formats: Formats, which: int) -> Floats:
        slopes, tokens = self._positive, inputs.tokens
        doublings = np.log2(tokens / _REFERENCE_CONTEXT)
        wide = np.where(formats.granularity == TENSOR, 0.0, np.log2(formats.group / 64.0))
        key_wide = np.where(formats.granularity == CHANNEL, 0.0, wide)
        window = np.log1p(formats.residual / 32.0)
        key, value = (
            BOUND * np.tanh(inputs.tables[side][which] @ self._tables[side] / BOUND)
            for side in ("key", "value")
        )
        key = key + slopes["group_key"] * key_wide + slopes["context"] * doublings
        value = value + slopes["group_value"] * wide + slopes["context_value"] * doublings
        value = value + (slopes["residual"] - slopes["residual_value"]) * window
        scales = [self._values[f"scale:{name}"] for name in SCALES[:3]]
        logs = np.stack([key + scales[0], key + scales[1], value + scales[2]])
        found: Floats = noise(formats, slopes, tokens) * np.exp(logs)
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
