"""The sizes of a decoder that is not understood: numbers where they are known, ranges where not."""

from collections.abc import Sequence
from typing import NamedTuple

from ....light_dataclass import dataclass


class Range(NamedTuple):
    """At least, as read, at most."""

    low: int
    read: int
    high: int

    def at(self, end: int) -> int:
        """Its low end (-1), as read (0), its high end (1)."""
        return self[end + 1]


def exactly(value: int) -> Range:
    return Range(value, value, value)


class Latent(NamedTuple):
    """MLA's sizes."""

    query_rank: int | None
    kv_rank: int
    nope: int
    rope: int
    value: int


class Experts(NamedTuple):
    """`sparse`: how many layers have them."""

    number: int
    width: int
    top_k: int
    shared: Range
    sparse: Range


@dataclass(frozen=True)
class Sizes:
    """`width`: of a dense FFN, at most the sum of all widths the file names. `matrices`: the
    least a dense FFN or an expert has, in halves of one matrix: 6 gated, 3 where it may be plain,
    or its width that of gate and up together (RecurrentGemma, Qwen). `beside`: a dense FFN may
    stand beside the experts. `kinds`: the layers' own `layer_types`, where all are plain or
    sliding attention."""

    hidden: int
    layers: int
    vocab: int
    heads: int
    kv_heads: Range
    head_dim: int
    latent: Latent | None
    width: Range
    matrices: int
    activation: str
    experts: Experts | None
    beside: bool
    tied: bool | None
    positions: int
    window: int | None
    kinds: Sequence[str] | None
    max_context: int | None
