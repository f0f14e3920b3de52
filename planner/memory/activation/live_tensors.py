"""A counter of live bytes: tensors are taken and dropped, and the high-water mark is kept.

Each program in this package walks through a layer's forward pass as the engine's Python does,
one `take` for each tensor an operation makes and one `drop` where the last name for it goes.
Sizes are rounded as torch's CUDA caching allocator rounds them.
"""

from collections.abc import Iterable

ROUND = 512  # bytes; the caching allocator's granularity


def rounded(nbytes: int) -> int:
    return -(-nbytes // ROUND) * ROUND


class LiveTensors:
    """`nbytes` alive now, `peak` the most so far."""

    __slots__ = ("nbytes", "peak")

    def __init__(self, nbytes: int = 0) -> None:
        self.nbytes = nbytes
        self.peak = nbytes

    def take(self, nbytes: int) -> int:
        """A tensor is made: returns its size, to be given to `drop`."""
        size = -(-nbytes // ROUND) * ROUND
        self.nbytes += size
        if self.nbytes > self.peak:
            self.peak = self.nbytes
        return size

    def take_all(self, sizes: Iterable[int]) -> int:
        """Tensors are made: their sizes' sum, to be given to `drop`."""
        return sum(map(self.take, sizes))

    def drop(self, *sizes: int) -> None:
        """Tensors' last references go."""
        self.nbytes -= sum(sizes)

    def touch(self, nbytes: int) -> None:
        """Something is made and gone within one operation."""
        self.drop(self.take(nbytes))
