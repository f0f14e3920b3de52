"""What recurrent mixers cost, which transformers' own code runs operation by operation.

Counted as torch dispatches them, views aside, in transformers 5.23's modules at published shapes on
the meta device (the plain code: the optional kernels are not installed beside this runtime): the
operations of a step, of a chunk, and of each 64 tokens of a chunk where the code loops over blocks;
and the bytes that a chunk's operations read and write beside weights, for each token and channel of
the mixer's width.
"""

from ..light_dataclass import dataclass
from ..models.spec import RecurrentState


@dataclass(frozen=True, slots=True)
class Calls:
    """Operations of one mixer, and bytes a token and channel."""

    step: int
    chunk: int
    block: float
    moved: float


RECURRENT = {
    "mamba2": Calls(36, 82, 0.0, 240.0),
    "short_conv": Calls(7, 7, 0.0, 11.0),
    "gated_delta": Calls(62, 78, 9.0, 170.0),
    "lightning": Calls(21, 17, 3.25, 60.0),
}
"""By RecurrentState.kind, of the kinds that the runtime runs. Mamba-2 moves 197 to 271 bytes in
five models; what lightning attention moves was not counted."""
BY_CHANNEL = Calls(68, 469, 19.0, 1040.0)
"""A gated delta net whose every channel decays on its own (Kimi delta attention)."""
UNCOUNTED = Calls(85, 85, 0.0, 240.0)
"""A kind that the runtime does not run: what recurrent mixers take in transformers."""


def recurrent_calls(mixer: RecurrentState) -> Calls:
    if mixer.decays_by_channel:
        return BY_CHANNEL
    return RECURRENT.get(mixer.kind, UNCOUNTED)
