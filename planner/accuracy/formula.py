"""How much noise a KV format adds to attention, up to a model's own scale factors.

Rounding to b bits over a range R leaves an error of variance (R / (2^b - 1))^2 / 12. What a
format changes is b and R: how many values share a scale, and whether outliers are among them.
Noise is kept as three components, because a format acts on each differently:

    plain     keys, the bulk of the channels: R is the span of n values that share a scale
    outlier   keys, the few channels with a huge bias or magnitude: wherever such a channel is
              in a group, it alone sets R; rotation spreads it, smoothing removes its mean, and
              per-channel scales never mix it with the others. Where the model's checkpoint was
              read (key_noise/), its own table of formats takes the place of these rules
    value     values, which have no such channels

Every factor that depends on bits, group or block grows with coarser formats, whatever the
coefficients are (they enter as exp(theta) > 0), so no fit can make a finer format worse.
Shared by the planner, which evaluates fitted coefficients, and by the calibration, which fits
them: one definition.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..formats.configuration import Granularity
from ..light_dataclass import dataclass

Floats = NDArray[np.float64]
Coefficients = Mapping[str, float] | Mapping[str, Floats]
"""By name; columns where several sets are tried at once."""
OUTLIER = 1
"""Row of the key outliers among the components."""
GRANULARITIES = tuple(Granularity)
TOKEN, CHANNEL, BLOCK, TENSOR = range(4)
"""Codes of `Formats.granularity`, in the order of `GRANULARITIES`."""

# Expected span of 2^i independent standard normal values, i = 0..20 (control-chart d2).
_SPAN = np.array(
    [
        [0.0, 1.1284, 2.0588, 2.8472, 3.532, 4.1393, 4.6875],
        [5.1892, 5.6537, 6.0878, 6.4965, 6.8836, 7.2522, 7.6046],
        [7.9427, 8.2682, 8.5823, 8.8861, 9.1806, 9.4665, 9.7446],
    ]
).ravel()
_REFERENCE_SPAN = 4.6875  # a group of 64
_TENSOR_VALUES, _TENSOR_TOKENS = 20, 10.0  # log2 of what shares a scale per tensor

NEAR = 16.0
"""Tokens over which attention is about even; from 4 to 64 it makes no difference to the rows."""

COEFFICIENTS = (
    "gamma",
    "rotation_plain",
    "rotation_key",
    "rotation_value",
    "smoothing",
    "channel_plain",
    "channel_outlier",
    "tile",
    "tensor",
    "residual",
    "context",
    "context_retrieval",
    "decline",
    "weight_8bit",
)
"""Names of the positive coefficients, in the order of the fit's parameter vector.

    gamma            steepness of retention's fall with log noise
    rotation_plain   log attenuation of plain key noise by rotation
    rotation_key     log attenuation of key outliers by rotation
    rotation_value   log attenuation of value noise by rotation
    smoothing        log attenuation of key outliers by K-smoothing
    channel_plain    log attenuation of plain key noise by per-channel scales
    channel_outlier  log attenuation of key outliers by per-channel scales
    tile             log growth of all noise with each doubling of the tokens that share a scale
                     across channels: one odd token coarsens the grid of all of them
    tensor           log growth of key outliers where one scale spans a tensor
    residual         power of the attention that lies outside of a window of recent 16-bit tokens
    context          log noise added by each doubling of the context beyond 4,096 tokens
    context_retrieval  more of it where one place of the context must be found exactly
    decline          power by which the unquantized model's own score on exact retrieval divides the
                     noise it bears: what it hardly finds, it loses first
    weight_8bit      log attenuation of weight noise from 4 to 8 bits. Not the 2^-8 of the step:
                     8-bit weights share a scale by row, 4-bit ones by 128 and searched (AWQ)
"""


@dataclass(frozen=True, slots=True)
class FormatArrays:
    """KV formats as arrays of one length N.

    `group` is channels that share a scale (the head's width where the configuration has no
    group), `block` tokens that do (1 per token). Bits are floats: 16 means not quantized.
    """

    k_bits: Floats
    v_bits: Floats
    granularity: NDArray[np.int64]
    group: Floats
    block: Floats
    smoothing: Floats
    rotate_k: Floats
    rotate_v: Floats
    residual: Floats
    read: Floats | None = None
    """Key noise by the model's own checkpoint under these formats and their protected layers
    (key_noise/), in the place of the outlier component's; nan where it was not read."""
    read_worst: Floats | None = None
    """The same as the lower end of an interval takes it."""
    measured: Floats | None = None
    """Noise by the model's own attention under these formats and their protected layers, without
    windows [3, N] (attention_noise.py)."""
    biased: Floats | None = None
    """1 where the keys have biases that nobody read: rotation spreads them over all channels and
    makes none of them smaller against what it spoils. None where no keys have any."""
    exact_prompt: Floats | None = None
    """1 where the prompt is attended in 16 bits before its keys and values are quantized, so that
    an answer's first token knows no noise. None where none is."""
    float_keys: Floats | None = None
    """1 where keys are floats of few bits. None where none are."""

    def at(self, places: NDArray[np.int64]) -> "FormatArrays":
        """The formats at these places."""
        columns = {
            name: column[..., places]
            for name in FormatArrays.__dataclass_fields__
            if (column := getattr(self, name)) is not None
        }
        return replace(self, **columns)

    def worth_more(self, bits: Floats) -> "FormatArrays":
        """The same as if quantized sides were worth so many more bits [F]."""
        k, v = (
            np.where(side < 16, np.clip(side + bits, 1.0, 15.0), side)
            for side in (self.k_bits, self.v_bits)
        )
        return self.with_bits(k, v)

    @property
    def with_biases(self) -> "FormatArrays":
        """The same of keys that have biases."""
        return replace(self, biased=np.ones(self.k_bits.shape))

    @property
    def spread_out(self) -> Floats:
        """1 where rotation makes key outliers smaller."""
        return self.rotate_k if self.biased is None else self.rotate_k * (1.0 - self.biased)

    @property
    def worst(self) -> "FormatArrays":
        """The formats as the lower end of an interval takes them."""
        return self if self.read_worst is None else replace(self, read=self.read_worst)

    def with_bits(self, k_bits: Floats | float, v_bits: Floats | float) -> "FormatArrays":
        """The same layouts at other bits: what protected layers keep."""
        return replace(
            self,
            k_bits=np.broadcast_to(np.asarray(k_bits, dtype=float), self.k_bits.shape),
            v_bits=np.broadcast_to(np.asarray(v_bits, dtype=float), self.v_bits.shape),
        )


def span(values: Floats) -> Floats:
    """Expected span of `values` normal variables, in standard deviations."""
    return np.interp(np.log2(np.maximum(values, 1.0)), np.arange(len(_SPAN)), _SPAN)


def relative_spans(formats: FormatArrays) -> tuple[Floats, Floats]:
    """Span of the keys, and of the values, that share a scale, relative to a group of 64."""
    channel, tensor = formats.granularity == CHANNEL, formats.granularity == TENSOR
    shared = np.where(channel, formats.block, formats.group * formats.block)
    # Per-channel keys keep per-token values in the same groups.
    value_shared = np.where(channel, formats.group, shared)
    key, value = (
        np.where(tensor, _SPAN[_TENSOR_VALUES], span(values)) / _REFERENCE_SPAN
        for values in (shared, value_shared)
    )
    return key, value


def step_power(bits: Floats) -> Floats:
    """Noise power of rounding to `bits`, relative to a single step of the whole range; 0 at 16."""
    return np.where(bits >= 16, 0.0, (2.0 ** np.minimum(bits, 16.0) - 1.0) ** -2.0)


@dataclass(frozen=True, slots=True)
class FormatNoise:
    """What of `noise` formats alone decide, [N] each: a fit evaluates it once for all its steps."""

    plain: Floats
    outlier: Floats
    value: Floats
    """Noise power of each component before any coefficient."""
    tokens: Floats
    """log2 of the tokens that share a scale across channels."""

    @classmethod
    def of(cls, formats: FormatArrays) -> "FormatNoise":
        channel, tensor = formats.granularity == CHANNEL, formats.granularity == TENSOR
        spans, value_spans = relative_spans(formats)
        # An outlier channel spoils its own group: the share of channels that sit beside one.
        spoiled = np.where(channel, spans**2, formats.group / 64.0)
        key, value = step_power(formats.k_bits), step_power(formats.v_bits)
        tokens = np.where(tensor, _TENSOR_TOKENS, np.where(channel, 0.0, np.log2(formats.block)))
        return cls(key * spans**2, key * spoiled, value * value_spans**2, tokens)


def noise(
    formats: FormatArrays,
    coefficients: Coefficients,
    context: Floats,
    alone: FormatNoise | None = None,
) -> Floats:
    """Noise power of each component at unit model scale, shape (3, N): plain, outlier, value.

    `alone` is FormatNoise.of(formats) where the caller has it. Coefficients may be columns
    [variants, 1]: then it is (3, variants, N).
    """
    alone = alone or FormatNoise.of(formats)
    channel, tensor = formats.granularity == CHANNEL, formats.granularity == TENSOR
    # a window keeps the last tokens' share of the attention from the noise
    kept = attention_outside(formats.residual, context) ** coefficients["residual"]
    kept = kept * np.exp(coefficients["tile"] * alone.tokens)
    plain = alone.plain * np.exp(
        -coefficients["channel_plain"] * channel - coefficients["rotation_plain"] * formats.rotate_k
    )
    outlier = alone.outlier * np.exp(
        coefficients["tensor"] * tensor
        - coefficients["channel_outlier"] * channel
        - coefficients["rotation_key"] * formats.spread_out
        - coefficients["smoothing"] * formats.smoothing
    )
    if formats.read is not None:
        outlier = np.where(np.isnan(formats.read), outlier, formats.read)
    quiet = alone.value * np.exp(-coefficients["rotation_value"] * formats.rotate_v)
    return np.stack([plain, outlier, quiet]) * kept


def attention_outside(residual: Floats, context: Floats) -> Floats:
    """Share of attention that goes to tokens before the last `residual`: it falls with the inverse
    of the distance beyond NEAR tokens. 1 without a window, 0 for one as long as the context."""
    inside = np.log1p(np.minimum(residual, context) / NEAR)
    return np.asarray(1.0 - inside / np.log1p(context / NEAR))


def context_factor(context: Floats, coefficient: Floats | float) -> Floats:
    """Growth of the noise with the context: never below 1, flat up to 4,096 tokens."""
    return np.exp(coefficient * np.log2(np.maximum(context, 4096.0) / 4096.0))


WEIGHTS_BELOW_4 = 0.396
"""Log noise added by each bit below 4. What has fewer bits is given them by this slope from its
divergence (named_noise.equivalent_bits), so predictions do not depend on it."""


def weight_noise(bits: Floats, attenuation: Floats | float) -> Floats:
    """Noise of weight formats relative to 4 bits: 0 at 16, exp(-attenuation) < 1 at 8, 1 at 4.

    Its logarithm is a line between and beyond, of a slope of its own below 4. Bits need not be
    whole: formats with names are worth any (named_noise.py).
    """
    bits = np.asarray(bits, dtype=float)
    above = np.exp(-attenuation * (bits - 4.0) / 4.0)
    below = np.exp(WEIGHTS_BELOW_4 * (4.0 - bits))
    return np.where(bits >= 16, 0.0, np.where(bits < 4, below, above))
