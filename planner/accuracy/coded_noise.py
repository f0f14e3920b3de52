"""Bits that tables, floats and clipped ranges are worth: of integers over the whole range.

The noise model knows integers that span a group's range. A table of levels or a clipped range of
the same bits leaves another squared error of normal values; it enters as the bits of integers with
that error, which grow with the number of values that share a scale: a wide group's range is set by
its rarest values, where integers waste codes. tests/planner/accuracy/test_coded_noise.py repeats
the numbers. What an outlier does to a clipped range is not in them.
"""

import numpy as np

from ..formats.code_tables import CODED, FP8
from ..formats.configuration import CLIPPED, Configuration
from ..formats.kv_format import KVFormat, SideFormat

AFFINE_BITS = 0.6
"""What affine maps add to smoothing and rotation, both sides taken as one."""
ROWS_BITS = 0.09
"""What e4m3 costs products with 4-bit weights: an error of 2.6 % of a normal row and as much of the
weights, beside the 10 % of integers of 4 bits in groups of 128. All three together are 6 % larger,
the log of which to base 2 is 0.086."""
AFFINE_DOUBT, CODED_DOUBT = 0.7, 0.3
"""By profiles/calibrations/same_bytes_*.jsonl. Maps add 0.1 bits, both sides at 4, where no key
stands out, and 1.5 where biases reach 200. NF4 kept half a bit less than integers of such keys,
unrotated; Lloyd's tables what they are worth."""
WIDTHS = 32, 64, 128, 256
"""Values that share a scale, by which the numbers below are given."""
_TABLES = {
    "nf4": (3.903, 3.989, 4.071, 4.147),
    "lloyd3": (3.110, 3.165, 3.228, 3.299),
    "lloyd2": (2.237, 2.326, 2.415, 2.506),
    "fp8": (5.5, 5.5, 5.5, 5.5),
    "nvfp4": (3.74, 3.74, 3.74, 3.74),
    "mxfp4": (3.52, 3.52, 3.52, 3.52),
}
"""Bits that each table is worth. Floats' error is relative, so that no group matters much; blocks
have their own, and are beside integers in groups of 32 (named_noise.py)."""
_CLIPS = 100, 90, 80, 70, 60, 50
_KEPT = {
    2: ((1.0, 0.809, 0.690, 0.665, 0.768, 1.036), (1.0, 0.807, 0.660, 0.577, 0.583, 0.716),
        (1.0, 0.806, 0.647, 0.533, 0.485, 0.535), (1.0, 0.806, 0.640, 0.510, 0.430, 0.428)),
    3: ((1.0, 0.898, 1.097, 1.713, 2.905, 4.882), (1.0, 0.851, 0.873, 1.154, 1.825, 3.069),
        (1.0, 0.829, 0.761, 0.860, 1.229, 2.028), (1.0, 0.819, 0.703, 0.699, 0.887, 1.403)),
}  # fmt: skip
"""Noise power of integers of 2 and 3 bits whose range is clipped to _CLIPS percent, of that of the
whole range, by WIDTHS."""


def worth(config: Configuration, head_dim: int) -> tuple[float, float]:
    """Bits that the keys and values of unprotected layers are worth, in heads of `head_dim`."""
    coded = bool({config.k_format, config.v_format} & CODED.keys())
    if config.clip == 100 and not coded and not config.affine:
        return float(config.k_bits), float(config.v_bits)
    taken = (*config.protection.layers,) if config.protection is not None else ()
    layer = next(i for i in range(len(taken) + 1) if i not in taken)
    form = KVFormat.of(config, layer)
    more = AFFINE_BITS if config.affine else 0.0
    keys, values = (_bits(side, head_dim) for side in (form.key, form.value))
    return keys + more * (keys < 16), values + more * (values < 16)


def weights_worth(config: Configuration) -> float:
    """Bits that the weights are worth, with the rows that they are multiplied with."""
    return config.weight_bits - ROWS_BITS * (config.activation_bits < 16)


def doubt(config: Configuration) -> float:
    """Bits by which `worth` may be off, either way, at the ends of an interval."""
    coded = bool({config.k_format, config.v_format} & CODED.keys() - {FP8})
    return AFFINE_DOUBT * config.affine + CODED_DOUBT * (coded or config.clip < 100)


def _bits(side: SideFormat, dim: int) -> float:
    place = np.log2(min(max(side.shared_values(dim), WIDTHS[0]), WIDTHS[-1]))
    widths = np.log2(WIDTHS)
    if side.table:
        return float(np.interp(place, widths, _TABLES[side.table]))
    if side.clip == 100 or side.bits not in CLIPPED:
        return float(side.bits)
    kept = [np.interp(-side.clip, [-c for c in _CLIPS], row) for row in _KEPT[side.bits]]
    steps = (2.0**side.bits - 1) / np.sqrt(np.interp(place, widths, kept))
    return float(np.log2(1.0 + steps))
