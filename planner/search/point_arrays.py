"""The points of an evaluated space as arrays: what choosing and breaking ties look at."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..light_dataclass import dataclass

Column = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PointArrays:
    """What decides, one flat array of length N each; smaller is better but for retention.

    `memory` is the upper end in bytes, `low` and `retention` the lower end and the prediction.
    """

    memory: Ints
    low: Floats
    retention: Floats
    ttft: Floats
    tpot: Floats
    time: Floats
    """Seconds (or units of a reference) for the whole prompt and output."""
    complexity: Ints
    allowed: Mask
    """Whether the point may be recommended at all; a risk that is accepted overrides it."""
    usual: Mask
    """Whether people run such formats and chunks: preferred where one is safe."""
