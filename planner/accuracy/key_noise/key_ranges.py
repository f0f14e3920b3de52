"""Key noise foreseen from a checkpoint: its key biases and norms, before anything is run.

A collapse at 4-bit keys has its cause in the weights: a bias on the keys, or gains of a norm on
them, thousands of times larger in a few channels of a few layers than in the rest. Those tensors
are small (some 300 kB of Qwen2.5-7B), so they are read, and keys are made of them: normal noise of
one standard deviation, the norm with its gains or the bias, RoPE at positions of a text. They are
quantized as each format does, and what that changes in the products with queries of the same making
is a table of the model:

    V[bits, transform, structure, layer] = variance over the tokens of q (k' - k) / sqrt(d), less
                                           that of normal keys as wide as these
    noise = sum of V over the layers, in units of plain 4-bit keys

What all tokens share cancels in the softmax and does not count, nor does what sits at the ends of a
range, which are stored exactly: so rotation makes large biases worse (Qwen2.5-Coder-0.5B: KL 0.56
to 1.97) while it helps other outliers. No bound on what one lost layer costs is taken: of two
related models whose first layer is lost, one keeps most of a text and the other nothing.

Coarser sharing and fewer bits never have less noise: each entry is at least that of what is finer.
"""

import json
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .... import profiles
from ...light_dataclass import dataclass

Floats = NDArray[np.float64]
PLAIN_FOUR_BITS = 15.0**-2
"""Noise power of 4-bit rounding, the unit of formula.py's components."""
BITS = (2, 4, 8)
TRANSFORMS = ("plain", "rot", "smooth", "smooth+rot")
STRUCTURES = ("g16", "g32", "g64", "g128", "head", "kc32", "kc128")
"""Token scales by channels that share one, and channel scales by tokens that do."""
_GROUPS = np.array([16.0, 32.0, 64.0, 128.0])
CHANNEL_BLOCKS = 32.0, 128.0
"""Tokens that share a channel's scale in the last two."""
FOLDER = "key_ranges"
WORTH_PROTECTING = 0.03
"""Variance of products under 4-bit keys per token, mean over the layers, from which on some are
worth protecting: three times what 4 bits do to normal keys, (5.2 / 15)^2 / 12."""
MOST = (0.6, 0.9)
"""Shares of a model's key noise that a proposal takes out."""
MOST_PROTECTED = 0.2
"""Share of the layers that a proposal may name."""


@dataclass(frozen=True, eq=False)
class KeyRanges:
    """The table of one model: `variance` [bits, transform, structure, layer]."""

    variance: Floats
    source: str
    name: str = ""
    """Hub id by which the table is bundled; "" for one that is not."""

    @classmethod
    def read(cls, payload: dict[str, Any], name: str = "") -> "KeyRanges":
        """From JSON values: {"source", "variance": {"bits transform structure": [layer, …]}}."""
        table = payload["variance"]
        shape = (len(BITS), len(TRANSFORMS), len(STRUCTURES), -1)
        rows = [table[f"{b} {t} {s}"] for b in BITS for t in TRANSFORMS for s in STRUCTURES]
        return cls(np.array(rows, dtype=float).reshape(shape), str(payload["source"]), name)

    def noise(
        self,
        formats: Any,
        protections: Sequence[Collection[int]],
        protection: NDArray[np.int64],
        protected_bits: Floats,
    ) -> Floats:
        """Noise of the keys under F formats, those of protected layers at their bits [F].

        Format f keeps the layers `protections[protection[f]]` at `protected_bits[f]`.
        """
        layers = self.variance.shape[-1]
        inside = np.zeros((len(protections), layers))
        for i, chosen in enumerate(protections):
            inside[i, [layer for layer in chosen if layer < layers]] = 1.0
        total = self.variance.sum(axis=-1)  # [bits, transform, structure]
        part = np.einsum("btsl,pl->pbts", self.variance, inside)
        transform, structure = self._places(formats)

        def variance(structure: NDArray[np.int64]) -> Floats:
            places = transform, structure
            every = at_bits(total[None, :, *places], np.zeros_like(protection), formats.k_bits)
            spared = at_bits(part[:, :, *places], protection, formats.k_bits)
            kept = at_bits(part[:, :, *places], protection, protected_bits)
            return np.maximum(every - spared, 0.0) + kept

        noise: Floats = PLAIN_FOUR_BITS * at_structure(variance, structure)
        return noise

    def shares(self, transform: str = "plain", structure: str = "head", bits: int = 4) -> Floats:
        """Each layer's share of what a format disturbs [layers]."""
        rows = self.variance[
            BITS.index(bits), TRANSFORMS.index(transform), STRUCTURES.index(structure)
        ]
        return np.asarray(rows / rows.sum())

    def proposals(self) -> tuple[tuple[int, ...], ...]:
        """Sets of layers that are worth more bits than the rest: few layers that hold most of what
        4-bit keys per token disturb. Empty where that is little, or spread over many layers."""
        four = BITS.index(4), TRANSFORMS.index("plain"), STRUCTURES.index("head")
        if self.variance[four].mean() < WORTH_PROTECTING:
            return ()
        shares = self.shares()
        worst = np.argsort(-shares, kind="stable")
        held = np.cumsum(shares[worst])
        counts = dict.fromkeys(int(np.searchsorted(held, most)) + 1 for most in MOST)
        few = [count for count in counts if count <= max(MOST_PROTECTED * len(shares), 1)]
        return tuple(tuple(sorted(worst[:count].tolist())) for count in few)

    def said(self) -> str:
        """Which layers stand out, for a person; "" where none do."""
        proposals = self.proposals()
        if not proposals:
            return ""
        worst = proposals[-1]
        layers = ", ".join(map(str, worst))
        share = float(self.shares()[list(worst)].sum())
        subject = f"layers {layers} hold" if len(worst) > 1 else f"layer {layers} holds"
        by = "the table of its keys that ships" if self.name else self.source
        return f"{subject} {share:.0%} of what 4-bit keys per token disturb, by {by}"

    def _places(self, formats: Any) -> tuple[NDArray[np.int64], Floats]:
        transform = (2 * formats.smoothing + formats.rotate_k).astype(np.int64)
        group = np.searchsorted(_GROUPS, formats.group)
        channel = STRUCTURES.index("kc32") + longer_blocks(formats.block)
        return transform, np.where(formats.granularity == 1, channel, group)


def at_bits(table: Floats, row: NDArray[np.int64], bits: Floats) -> Floats:
    """`table` [P, bits, F] at row[f] and bits[f], linear in its logarithm between the widths that
    it has; 0 at 16 bits [F]."""
    wide = np.arange(table.shape[2])
    place = np.interp(bits, BITS, np.arange(len(BITS)))
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(BITS) - 1)
    found = _between(table[row, below, wide], table[row, above, wide], place - below)
    return np.where(bits >= 16, 0.0, found)


def at_structure(noise_at: Callable[[NDArray[np.int64]], Floats], place: Floats) -> Floats:
    """What `noise_at` says of the structures at `place` [F], which may lie between two: linear in
    its logarithm there."""
    below = np.floor(place).astype(np.int64)
    found = noise_at(below)
    if (place > below).any():
        found = _between(found, noise_at(np.ceil(place).astype(np.int64)), place - below)
    return found


def longer_blocks(tokens: Floats) -> Floats:
    """How far from kc32 to kc128 scales of a channel over so many tokens stand, 0 to 1."""
    place: Floats = np.interp(np.log2(tokens), np.log2(CHANNEL_BLOCKS), (0.0, 1.0))
    return place


def _between(first: Floats, second: Floats, share: Floats) -> Floats:
    """From `first` to `second`, linear in the logarithm; 0 where the first is."""
    logs = [np.log(np.maximum(end, 1e-12)) for end in (first, second)]
    found: Floats = np.where(first > 0, np.exp(logs[0] + share * (logs[1] - logs[0])), 0.0)
    return found


def bundled_ranges(name: str) -> KeyRanges:
    """The table of a bundled model by its hub name."""
    text = profiles.read(f"{FOLDER}/{name.replace('/', '--')}.json")
    return KeyRanges.read(json.loads(text), name)


@lru_cache(maxsize=1)
def bundled() -> Collection[str]:
    """Hub ids whose tables are shipped."""
    names: list[str] = json.loads(profiles.read(f"{FOLDER}/index.json"))
    return names
