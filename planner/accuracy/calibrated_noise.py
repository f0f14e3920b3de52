"""The noise of one calibrated model: the formula with every number fitted to that model's rows.

    retention = 1 / (1 + D^gamma_kind) * 1 / (1 + W e^weight_kind)
    D = sum over components of noise_c(format) * e^(scale_c + kind + [values] value_kind + table_c)

Rows of many models share their coefficients (predictor.py). A model with enough rows of its
own shows where those do not fit it: its own gains of rotation, smoothing and channels, its own
steepness for each kind of task, its own growth with the context, and tables of what is left
(interactions.py). All are drawn to the shared fit by their priors, so that a model with few rows
has the shared fit and one with hundreds its own.

Monotone in bits by construction, as the shared fit is: what depends on bits, and what a format
that was run adds, are bounded by 0.8 either way, together less than half of what two bits are
worth (ln 25), so that neither can turn the order of bits around. (Where the model's attention
was measured, attention_noise.py, the order is the table's: what bits hardly change there, since a
layer is lost with either, rows may turn.) Slopes are positive, so that finer groups, smaller
blocks and longer windows never lose among formats that were not run.
Contexts beyond 4,096 tokens never gain; below, a model may be better or worse than there (its
tasks are denser).
"""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np

from ..light_dataclass import dataclass
from .formula import (
    CHANNEL,
    COEFFICIENTS,
    TENSOR,
    Floats,
    FormatArrays,
    attention_outside,
    noise,
    relative_spans,
    weight_noise,
)
from .interactions import TABLES, LayerFormats
from .retention import cache_retention, weight_retention

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
OF_WEIGHTS = ("gamma", "weight_8bit", "scale:weight")
"""Of the parameters that no kind has, those that leave `components` as they are."""
TEXT_KIND = "perplexity"
"""The kind whose steepness is apart from that of all tasks: a calibration by text alone would learn
both from the same rows."""
_REFERENCE_CONTEXT = 4096.0
"""Tokens beyond which noise grows by the slope of `context`; `below` is its slope under them."""


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
class CacheUse:
    """What a prediction of N cache formats needs: the layers (all, or protected ones apart),
    tokens [N], and the share of layers that cache anything."""

    layers: tuple[LayerFormats, ...]
    tokens: Floats
    fraction: float

    @classmethod
    def of(
        cls,
        formats: FormatArrays,
        protected: FormatArrays,
        shares: Floats,
        tokens: Floats | float,
        fraction: float,
    ) -> "CacheUse":
        """`shares` [3, N] is each component's share in layers that keep `protected`."""
        wide = np.broadcast_to(np.asarray(tokens, dtype=float), formats.k_bits.shape)
        layers = [LayerFormats.of(formats, 1.0 - shares)]
        if shares.any():
            layers.append(LayerFormats.of(protected, shares))
        return cls(tuple(layers), wide, fraction)


class CalibratedNoise:
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

    def moved(self, name: str, step: float) -> "CalibratedNoise":
        """The same with one parameter that is none of the tables' moved by `step`."""
        moved = copy(self)
        moved._values = {**self._values, name: self._values[name] + step}
        if name in self._positive:
            moved._positive = {**self._positive, name: float(np.exp(moved._values[name]))}
        return moved

    def components(self, inputs: CacheUse, tabled: Sequence[Floats] | None = None) -> Floats:
        """Noise of plain keys, outlier keys and values at the model's scales, [3, N]. `tabled` are
        the results of the method of this name, one a layer, where the caller has them."""
        known = tabled or [self.tabled(layer) for layer in inputs.layers]
        layers = zip(inputs.layers, known, strict=True)
        noise: Floats = np.sum([self._of_layer(layer, inputs, own) for layer, own in layers], 0)
        return noise

    def of_layer(self, layer: LayerFormats, inputs: CacheUse) -> Floats:
        """What these layers add to `components`."""
        return self._of_layer(layer, inputs, self.tabled(layer))

    def _of_layer(self, layer: LayerFormats, inputs: CacheUse, tabled: Floats) -> Floats:
        slopes, formats = self._positive, layer.formats
        if formats.measured is not None:
            return self._of_measured(formats.measured, layer, inputs, tabled)
        above = np.log2(np.maximum(inputs.tokens, _REFERENCE_CONTEXT) / _REFERENCE_CONTEXT)
        channel, tensor = formats.granularity == CHANNEL, formats.granularity == TENSOR
        wide = np.where(tensor, 0.0, np.log2(formats.group / 64.0))
        tiles = np.where(channel | tensor, 0.0, np.log2(formats.block))
        window = np.log(np.maximum(attention_outside(formats.residual, inputs.tokens), 1e-6))
        key = slopes["group_key"] * np.where(channel, 0.0, wide) + slopes["context"] * above
        value = slopes["group_value"] * wide + slopes["context_value"] * above
        value = value + (slopes["residual_value"] - slopes["residual"]) * window
        value = value + (slopes["tile_value"] - slopes["tile"]) * tiles
        # one value has no span, and needs none
        spans = [np.log(np.maximum(span, 1e-6)) for span in relative_spans(formats)]
        plain = key + 2 * (slopes["span_key"] - 1) * spans[0]
        outlier = np.where(channel, plain, key)
        value = value + 2 * (slopes["span_value"] - 1) * spans[1]
        logs = [
            log + self._values[f"scale:{scale}"]
            for log, scale in zip((plain, outlier, value), SCALES, strict=False)
        ]
        unit = noise(formats, slopes, inputs.tokens, layer.alone)
        parts: Floats = unit * np.exp(np.stack(logs) + tabled) * layer.share * inputs.fraction
        return parts

    def _of_measured(
        self, measured: Floats, layer: LayerFormats, inputs: CacheUse, tabled: Floats
    ) -> Floats:
        """The same where the model's attention was measured, which says what groups, tiles and
        transforms make of it. Keys of lost layers, beyond what they lose, count as outliers."""
        slopes = self._positive
        above = np.log2(np.maximum(inputs.tokens, _REFERENCE_CONTEXT) / _REFERENCE_CONTEXT)
        outside = np.maximum(attention_outside(layer.formats.residual, inputs.tokens), 1e-6)
        keys, values = (
            slopes[context] * above + slopes[window] * np.log(outside)
            for context, window in (("context", "residual"), ("context_value", "residual_value"))
        )
        plain, beyond, value = (self._values[f"scale:{name}"] for name in SCALES[:3])
        scales = np.array([plain, plain + beyond, value])
        logs = np.stack([keys, keys, values]) + scales[:, None] + tabled
        parts: Floats = measured * np.exp(logs) * layer.share * inputs.fraction
        return parts

    def tabled(self, layer: LayerFormats) -> Floats:
        """What the tables, and the formats that were run, add to the log noise [3, N]."""
        own = _bounded(self.of_format(layer))
        return np.stack(
            [
                own + self.deviation(free, layer) + _bounded(self.deviation(bounded, layer))
                for free, bounded in layer.parts
            ]
        )

    def of_format(self, layer: LayerFormats) -> Floats:
        """The deviation of every format, before its bound; 0 for those that were not run [N]."""
        if not len(self._codes):
            return np.zeros(len(layer.codes))
        place = np.searchsorted(self._codes, layer.codes).clip(max=len(self._codes) - 1)
        deviation: Floats = np.where(self._codes[place] == layer.codes, self._of_code[place], 0.0)
        return deviation

    def deviation(self, name: str, layer: LayerFormats) -> Floats:
        """The sum of the tables of one name [N]."""
        places = layer.places(name)
        total: Floats = np.sum(
            [e[t.place(places)] for t, e in self._entries.items() if t.name == name], axis=0
        )
        return total

    def effect(self, effect: str, kind: str) -> float:
        """0 for the reference kind, and for kinds that no row was about."""
        return self._values.get(f"{effect}:{kind}", 0.0)

    def gamma(self, kind: str) -> float:
        shared = 1.0 if kind == TEXT_KIND else self._positive["gamma"]
        return shared * float(np.exp(self.effect("gamma", kind)))

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
    bounded: Floats = BOUND * np.tanh(log / BOUND)
    return bounded
