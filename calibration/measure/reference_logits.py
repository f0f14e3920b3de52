"""The unquantized model's logits of a text: read once, kept for every configuration.

A divergence reads each window twice, with and without quantization, and the second is the same for
all configurations that are fed in the same chunks. On a CPU that is half of its time. Where the
logits are many (a long text, a large vocabulary, a GPU, whose time is short and memory dear) none
is kept, and the model reads again.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from ...runtime import Session

MOST = 512 * 2**20
"""Bytes of logits that are kept of one session."""


class ReferenceLogits:
    """What `session` predicts, as `Session.logits` gives it; the session is the caller's."""

    def __init__(self, session: Session, most: int = MOST) -> None:
        """At most `most` bytes are kept, on a CPU only."""
        self.session = session
        self._left = most if session.device.type == "cpu" else 0
        self._kept: dict[tuple[object, ...], list[Tensor]] = {}

    def read(self, ids: Tensor, places: Tensor, chunks: Sequence[int]) -> Iterator[Tensor]:
        """For each chunk the logits [B, n, V] at the `places` [P] of `ids` [B, T] in it."""
        key = tuple(ids.flatten().tolist()), tuple(places.tolist()), tuple(chunks)
        kept = self._kept.get(key)
        if kept is not None:
            yield from kept
            return
        tensors: list[Tensor] | None = []
        size = 0
        for logits in self.session.logits(ids, places, chunks):
            size += logits.nbytes
            if tensors is not None and size <= self._left:
                tensors.append(logits)
            else:
                tensors = None
            yield logits
        if tensors:
            self._left -= size
            self._kept[key] = tensors
