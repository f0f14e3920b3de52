"""One forward pass seen from a layer: how many tokens come in, how many are cached, which engine.

A prefill in chunks is a row of stages; a decoding step is a stage of one token.
"""

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum

from ...formats.weight_format import W4
from ...light_dataclass import dataclass
from ...workload import Workload
from .block_traits import LLAMA, BlockTraits
from .workspace import FEW_ROWS, eight_bit_bytes


class Attend(StrEnum):
    """What computes attention, and what holds keys and values for it."""

    SDPA = "sdpa"  # torch's fused kernels over a DynamicCache
    EAGER = "eager"  # scores written out, over a DynamicCache
    DEQUANTIZED = "dequantized"  # SDPA over a copy that QuantizedCache dequantizes
    PACKED = "packed"  # kvpareto's kernels, which read a preallocated packed cache


@dataclass(frozen=True, slots=True)
class ForwardStep:
    """`new` tokens of each of `batch` sequences meet `past` cached ones.

    `previous` is the size of the stage before (0: none): a sliding layer's storage remembers it.
    `element` is the bytes of one activation value, `hidden` the width of the residual stream,
    `norm` its kind of norm; `traits` are the family's.
    """

    batch: int
    new: int
    past: int
    previous: int
    element: int
    hidden: int
    norm: str = "rms"
    traits: BlockTraits = LLAMA
    attend: Attend = Attend.SDPA
    capacity: int = 0
    """Tokens that a cache allocated before prefill has room for."""
    recent: bool = False
    """Recurrent layers are those of transformers 5.20 and later, not 5.17's, which make far larger
    products in Mamba-2's scan."""
    fused_layer: bool = False
    """kvpareto runs a whole layer's code, not its norms, rotary embeddings and gates alone."""
    in_8_bits: bool = False
    """The cache is one whose chunks kvpareto attends to in 8 bits on this GPU, where enough queries
    come and heads are such."""
    packed_weights: bool = False
    """Matrices are quantized, and kvpareto's layers multiply by them."""
    rounded_rows: bool = False
    """Their products of more than a few rows take these in 8 bits."""

    @property
    def fused(self) -> bool:
        """Whether norms, rotary embeddings and gates are single kernels (kvpareto's)."""
        return self.attend is Attend.PACKED

    @property
    def total(self) -> int:
        return self.past + self.new

    @property
    def rows(self) -> int:
        """Tokens that pass through a layer."""
        return self.batch * self.new

    def rounded(self, inputs: int) -> tuple[int, int]:
        """Bytes of a product's rows in 8 bits beside those in 16, and of their scales."""
        if not self.rounded_rows or self.rows <= FEW_ROWS:
            return 0, 0
        return eight_bit_bytes(self.rows, W4.padded(inputs))

    def bytes(self, width: int) -> int:
        """Bytes of an activation of `width` channels a token."""
        return self.rows * width * self.element


def prefill(like: ForwardStep, context: int, chunk: int | None) -> Iterator[ForwardStep]:
    """The passes, otherwise like `like`, that can set the high-water mark of a prefill.

    Caches only grow, so of the full chunks the last counts, and the shorter rest after it.
    """
    size = min(chunk or context, context)
    full, rest = divmod(context, size)
    past = (full - 1) * size
    yield replace(like, new=size, past=past, previous=size if past else 0)
    if rest:
        yield replace(like, new=rest, past=full * size, previous=size)


def decode(like: ForwardStep, workload: Workload, chunk: int | None) -> Iterator[ForwardStep]:
    """The first step, which finds what prefill left, and the last, which finds the most."""
    if workload.output:
        size = min(chunk or workload.context, workload.context)
        last = workload.context % size or size
        yield replace(like, new=1, past=workload.context, previous=last)
    if workload.output > 1:
        yield replace(like, new=1, past=workload.tokens - 1, previous=1)
