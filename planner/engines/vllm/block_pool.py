"""From bytes for the cache to blocks, tokens and sequences, as vLLM 0.26.0 counts them.

Layers that keep the same are put into groups of one size; a block is one page of each layer of a
group, so that every group can take any block (v1/core/kv_cache_utils.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ...errors import BadInput
from ...hardware.compute_capability import Capability
from ...models.spec import ModelSpec
from ...models.spec_key import SpecKey
from .layer_pages import HOPPER, LayerPage, layer_pages
from .settings import ServeSettings

PADDING = 1.5
"""Kinds of layers that differ less than this in number are padded to the larger."""


@dataclass(frozen=True, slots=True)
class BlockPool:
    """`groups`: one page of each group. `block_bytes`: what one block takes on the device."""

    groups: tuple[LayerPage, ...]
    block_bytes: int
    settings: ServeSettings

    @classmethod
    def of(
        cls, spec: ModelSpec, settings: ServeSettings, capability: Capability = HOPPER
    ) -> "BlockPool":
        """The pool of a model, or of what a rank has of it. Raises BadInput for layers that are not
        planned."""
        pages_depend_on = ServeSettings(
            settings.max_model_len, settings.kv_cache_dtype, prefix_caching=settings.prefix_caching
        )
        return cls(*_groups(SpecKey(spec), pages_depend_on, capability), settings)

    def blocks(self, available: int) -> int:
        """Blocks that `available` bytes give."""
        return max(0, available) // self.block_bytes

    def blocks_of(self, tokens: int) -> int:
        """Blocks that one sequence of `tokens` tokens takes at most."""
        return sum(group.pages(tokens, self.settings) for group in self.groups)

    def tokens(self, available: int) -> int:
        """What vLLM prints as "GPU KV cache size": sequences of max_model_len, times that."""
        longest = self.settings.max_model_len
        return int(self.blocks(available) / self.blocks_of(longest) * longest)

    def sequences(self, available: int, tokens: int) -> int:
        """Sequences of `tokens` tokens that are in the cache at once. One block stays empty."""
        held = (self.blocks(available) - 1) // self.blocks_of(tokens)
        return max(0, min(held, self.settings.max_num_seqs))

    def blocks_of_mean(self, lengths: Sequence[tuple[int, float]]) -> float:
        """Blocks that a sequence takes on average, of (tokens, part of the sequences) each."""
        return sum(part * self.blocks_of(tokens) for tokens, part in lengths)

    def longest(self, available: int, most: int) -> int:
        """The largest max_model_len up to `most` with which vLLM starts; 0 if none."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_of(middle) * self.block_bytes <= available:
                low = middle
            else:
                high = middle - 1
        return low


@lru_cache(maxsize=256)
def _groups(
    key: SpecKey, settings: ServeSettings, capability: Capability
) -> tuple[tuple[LayerPage, ...], int]:
    """One page of each group, and the bytes of a block."""
    spec = key.spec
    pages = layer_pages(spec, settings, capability)
    if not pages:
        raise BadInput(
            f"{spec.model_type} keeps nothing that vLLM's cache would hold", "plan a decoder"
        )
    if len({(page.kind, page.window) for page in pages}) == 1:
        blocks = {page.block for page in pages}
        if len(blocks) == 1:  # of one kind: one group, whatever the widths
            return (pages[0],), sum(page.page for page in pages)
    largest = max(page.page for page in pages)
    kinds = Counter(_as_large(page, largest) for page in pages)
    size = min(kinds.values())
    if max(kinds.values()) < size * PADDING:
        size = max(kinds.values())
    groups = [kind for kind, count in kinds.items() for _ in range(-(-count // size))]
    return tuple(groups), size * largest


def _as_large(page: LayerPage, largest: int) -> LayerPage:
    """The page in the largest one's bytes: a longer block, or padding where none fits."""
    times, rest = divmod(largest, page.page)
    return replace(page, page=largest, block=page.block if rest else page.block * times)
