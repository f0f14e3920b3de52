"""Tables of a calibrated model's noise: their entries, and the entry of each cache format.

The formula of a model's own noise (calibrated_noise.py) has tables of what its smooth terms cannot
say: for each component one deviation for each granularity, smoothing and rotation and each pair of
them, for each side one for the bits with each of these, and one for every format that was run.
The fit, which fills them, and the prediction, which looks them up, share this module, so that an
entry's name and its place are defined once.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from ..light_dataclass import dataclass
from .formula import BLOCK, CHANNEL, TENSOR, TOKEN, Floats, FormatArrays, FormatNoise

Ints = NDArray[np.int64]
Places = Mapping[str, Ints]
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


@dataclass(frozen=True)
class InteractionTable:
    """Deviations of log noise over one axis of a format, or two; `name` is the component or, for
    tables that are bounded, the side."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]

    def entries(self, values: Mapping[str, Sequence[int]]) -> list[str]:
        combinations_of_values = product(*(values[axis] for axis in self.axes))
        return [
            f"{self.name}:" + ",".join(f"{a}={x}" for a, x in zip(self.axes, entry, strict=True))
            for entry in combinations_of_values
        ]

    def place(self, places: Places) -> Ints:
        """Number of the entry of each format."""
        numbers: Ints = np.ravel_multi_index(tuple(places[axis] for axis in self.axes), self.shape)
        return numbers


def _tables() -> dict[InteractionTable, list[str]]:
    """All tables with the names of their entries."""
    names: dict[InteractionTable, list[str]] = {}
    for name, axes in (("plain", _KEY_AXES), ("outlier", _KEY_AXES), ("value", _VALUE_AXES)):
        for chosen in (*((axis,) for axis in axes), *combinations(axes, 2)):
            table = InteractionTable(name, chosen, tuple(len(axes[axis]) for axis in chosen))
            names[table] = table.entries(axes)
    for name, rest in (("key_bits", _KEY_AXES), ("value_bits", _VALUE_AXES)):
        axes = {**_BITS, **rest}
        for chosen in (("bits",), *(("bits", axis) for axis in rest)):
            table = InteractionTable(name, chosen, tuple(len(axes[axis]) for axis in chosen))
            names[table] = table.entries(axes)
    return names


TABLES = _tables()
PARTS = (("plain", "key_bits"), ("outlier", "key_bits"), ("value", "value_bits"))
"""The tables of each component: free ones and bounded ones."""
_MEASURED_PARTS = (PARTS[0], PARTS[0], PARTS[2])
"""The same of noise that was measured, whose second component is of the same keys as the first."""


@dataclass(frozen=True, eq=False)
class LayerFormats:
    """Cache formats [N] as some of a model's layers keep them, where they stand on the tables'
    axes, and each component's share in those layers [3, N]."""

    formats: FormatArrays
    keys: Places
    values: Places
    codes: Ints
    share: Floats
    alone: FormatNoise

    @classmethod
    def of(cls, formats: FormatArrays, share: Floats) -> "LayerFormats":
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
        return cls(formats, keys, values, codes_of(formats), share, FormatNoise.of(formats))

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The tables of each component here."""
        return PARTS if self.formats.measured is None else _MEASURED_PARTS

    def places(self, name: str) -> Places:
        return self.values if name.startswith("value") else self.keys


def codes_of(formats: FormatArrays) -> Ints:
    """A number for each cache format, the same for the same format."""
    columns = (
        *(formats.k_bits, formats.v_bits, formats.granularity, formats.group, formats.block),
        *(formats.smoothing, formats.rotate_k, formats.rotate_v, formats.residual),
    )
    codes = np.zeros(formats.k_bits.shape, dtype=np.int64)
    for column in columns:
        # half bits of float formats count; windows beyond the base wrap without harm
        codes = codes * 1031 + np.round(2 * np.asarray(column, dtype=float)).astype(np.int64)
    return codes
