"""A configuration: every choice that decides memory, accuracy and speed, in one grammar.

    w4a16-k4v4-g64+smooth+rot+res128+sink4+protect{0,27}:k8v8+pc256

reads: weights at 4 bits, activations at 16; keys and values at 4 bits, one scale and offset
for each token, head and group of 64 channels; keys smoothed, heads rotated; the last 128
tokens and the first 4 kept in 16 bits; layers 0 and 27 protected at 8 bits; prefill in chunks
of 256 tokens. What is left out is the default: one group a head, no smoothing, no rotation,
no window, no sinks, no protected layers, prefill in one shot.

    w4a8    activations of prompts in 8 bits: products of 4-bit weights with more rows than the few
            of a decode step run in e4m3 (runtime/weights/eight_bits/)
    -kc     keys per channel in blocks of 32 tokens (`-kc128`: of 128), values per token
    -pb128  keys and values in tiles of 128 tokens x g channels
    -pt     one scale and offset for a whole layer's K, and one for its V, of each chunk
    wQ4_K_M-kq8_0vq5_1   formats by their field's names (formats/named.py), for the engines that
                         run them: of the weights, of K and of V, each by itself
    kfp8vfp8, knf4v4, klloyd3vlloyd2
            8-bit floats and tables of levels (code_tables.py), which our own cache holds too:
            every granularity and option goes with them
    knvfp4vnvfp4, k4vmxfp4-kc
            blocks of 16 or 32 channels of a token that bring their own scales: every option goes
            with them, a granularity only for the other side
    +affine keys and values under the affine maps that `calibrate --affine` learnt (runtime/cache/
            affine.py), which take the place of +smooth and +rot
    +clip70 sides of 2 and 3 bits span the middle 70 % of a group's range and clamp the rest
    +rope8  latent attention's rotary keys at 8 bits (or 4); without it they stay in 16 bits, and
            only the latents are quantized
    +pcdyn  the chunk follows a memory target as the cache fills

Printing a parsed configuration gives its canonical text; parsing that gives it back.
"""

from dataclasses import replace
from typing import Self

from ..errors import BadInput
from ..light_dataclass import dataclass
from . import named
from .code_tables import BLOCKS, CODED
from .grammar import DEFAULT_CHANNEL_BLOCK, HINT, MOST_TOKENS, Protection, read_fields
from .granularity import Granularity

__all__ = [
    "CHUNKS",
    "DEFAULT_CHANNEL_BLOCK",
    "GROUP_SIZES",
    "KV_BITS",
    "SPACE_BITS",
    "WEIGHT_BITS",
    "Configuration",
    "Granularity",
    "Protection",
]

WEIGHT_BITS = (16, 8, 6, 5, 4, 3, 2)  # 6, 5, 3 and 2 of checkpoints that are stored so
ACTIVATION_BITS = (16, 8)
KV_BITS = (16, 8, 6, 5, 4, 3, 2)
SPACE_BITS = (16, 8, 4, 2)
"""Those that a plan tries: the widths that every kernel reads at full speed."""
ROPE_BITS = (16, 8, 4)
CLIPPED = (2, 3)
"""Bits of integers that +clip narrows: with more, normal values lose by it."""
GROUP_SIZES = (32, 64, 128)
CHUNKS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One point of the space. `None` means what is not chosen: see each field.

    Raises BadInput at construction for a combination that means nothing.
    """

    weight_bits: int = 16
    k_bits: int = 16
    v_bits: int = 16
    granularity: Granularity = Granularity.PER_TOKEN
    group_size: int | None = None
    """Channels that share a scale; None = the whole head."""
    block_tokens: int | None = None
    """Tokens a per-channel key block or a per-block tile spans; None where neither applies."""
    smoothing: bool = False
    rotation: bool = False
    residual: int = 0
    """Most recent tokens kept in 16 bits."""
    sinks: int = 0
    """First tokens kept in 16 bits."""
    protection: Protection | None = None
    chunk: int | None = None
    """Prefill chunk in tokens; None = the whole prompt in one shot."""
    dynamic_chunk: bool = False
    weight_format: str = ""
    """A named format of the weights (formats/named.py), whose bits `weight_bits` then are; empty:
    the grammar's own."""
    k_format: str = ""
    v_format: str = ""
    rope_bits: int = 16
    """Bits of the rotary keys that latent attention keeps beside its latents."""
    clip: int = 100
    """Percent of a group's range that codes of CLIPPED bits span."""
    affine: bool = False
    """Keys and values under calibrated affine maps."""
    activation_bits: int = 16
    """Bits of the rows that a prompt's products multiply with packed weights."""

    def __post_init__(self) -> None:
        if self.formats:
            _check_names(self)
        _check_bits(self)
        _check_granularity(self)
        for name, value in (("res", self.residual), ("sink", self.sinks), ("pc", self.chunk or 0)):
            if not 0 <= value <= MOST_TOKENS[name]:
                raise BadInput(
                    f"+{name}{value} is out of range",
                    f"+{name} takes 1 to {MOST_TOKENS[name]:,} tokens",
                )
        if self.dynamic_chunk and self.chunk is not None:
            raise BadInput("a chunk is either fixed or dynamic, not both", HINT)

    @classmethod
    def named(cls, weights: str, keys: str, values: str, chunk: int | None = None) -> Self:
        """A configuration of named formats. Raises BadInput for a name that is not known."""
        return cls(**read_fields(f"w{weights}-k{keys}v{values}"), chunk=chunk)  # type: ignore[arg-type]

    @property
    def formats(self) -> tuple[str, ...]:
        """The named formats among weights, keys and values."""
        return tuple(filter(None, (self.weight_format, self.k_format, self.v_format)))

    @property
    def quantizes_kv(self) -> bool:
        protected = self.protection is not None and (
            self.protection.k_bits < 16 or self.protection.v_bits < 16
        )
        return self.k_bits < 16 or self.v_bits < 16 or protected

    @property
    def has_layout(self) -> bool:
        """Whether it says more of the cache than formats: what shares a scale, smoothing, rotation,
        clipping, windows, bits of rotary keys."""
        own = (
            *(self.granularity, self.group_size, self.block_tokens, self.smoothing, self.rotation),
            *(self.rope_bits, self.clip, self.affine, self.residual, self.sinks),
        )
        return own != (Granularity.PER_TOKEN, None, None, False, False, 16, 100, False, 0, 0)

    @property
    def largest_chunk(self) -> int | None:
        """The most tokens appended at once; None = the whole prompt."""
        return CHUNKS[-1] if self.dynamic_chunk else self.chunk

    def layer_bits(self, layer: int) -> tuple[int, int]:
        """(K bits, V bits) of one layer, protection applied."""
        if self.protection is not None and layer in self.protection.layers:
            return self.protection.k_bits, self.protection.v_bits
        return self.k_bits, self.v_bits

    def layer_tables(self, layer: int) -> tuple[str, str]:
        """(K, V) names of one layer's formats, "" for integers: protected layers have integers."""
        if self.protection is not None and layer in self.protection.layers:
            return "", ""
        return self.k_format, self.v_format

    def with_chunk(self, chunk: int | None) -> Self:
        return replace(self, chunk=chunk, dynamic_chunk=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the grammar above. Raises BadInput naming the part that is wrong."""
        return cls(**read_fields(text))  # type: ignore[arg-type]

    def __str__(self) -> str:
        weights = self.weight_format or f"{self.weight_bits}a{self.activation_bits}"
        parts = [f"w{weights}-k{self.k_format or self.k_bits}v{self.v_format or self.v_bits}"]
        if self.granularity is Granularity.PER_CHANNEL:
            default = self.block_tokens == DEFAULT_CHANNEL_BLOCK
            parts.append("-kc" if default else f"-kc{self.block_tokens}")
        elif self.granularity is Granularity.PER_BLOCK:
            parts.append(f"-pb{self.block_tokens}")
        elif self.granularity is Granularity.PER_TENSOR:
            parts.append("-pt")
        if self.group_size is not None:
            parts.append(f"-g{self.group_size}")
        parts += ["+smooth"] * self.smoothing + ["+rot"] * self.rotation
        parts += ["+affine"] * self.affine
        parts += [f"+clip{self.clip}"] if self.clip < 100 else []
        parts += [f"+rope{self.rope_bits}"] if self.rope_bits < 16 else []
        parts += [f"+res{self.residual}"] if self.residual else []
        parts += [f"+sink{self.sinks}"] if self.sinks else []
        if self.protection is not None:
            layers = ",".join(map(str, self.protection.layers))
            parts.append(f"+protect{{{layers}}}:k{self.protection.k_bits}v{self.protection.v_bits}")
        if self.dynamic_chunk:
            parts.append("+pcdyn")
        elif self.chunk is not None:
            parts.append(f"+pc{self.chunk}")
        return "".join(parts)


def _check_names(config: Configuration) -> None:
    rows = [(config.k_format, config.k_bits), (config.v_format, config.v_bits)]
    named_formats = [(named.kv_format(name), name, bits) for name, bits in rows if name]
    if config.weight_format:
        row = named.weight_format(config.weight_format)
        named_formats.append((row, config.weight_format, config.weight_bits))
    for row, name, bits in named_formats:
        if row is None or (row.name, row.bits) != (name, bits):
            raise BadInput(f"no format of {bits} bits is called {name!r}", HINT)
    sides = [name for name in (config.k_format, config.v_format) if name not in CODED]
    if any(sides) and config.has_layout:
        name = next(filter(None, sides))
        raise BadInput(
            f"{name} says itself what shares a scale, so granularity, smoothing, rotation and "
            "windows mean nothing beside it",
            "leave them out, or give K and V as bits: k4v4-g64",
        )
    _check_blocks(config)


def _check_blocks(config: Configuration) -> None:
    """Formats that bring their own blocks leave -g to the other side, and -kc where it is K."""
    k, v = (name in BLOCKS for name in (config.k_format, config.v_format))
    shared = config.granularity
    free = shared is Granularity.PER_TOKEN or (shared is Granularity.PER_CHANNEL and not k)
    if (k or v) and (not free or (k and v and config.group_size is not None)):
        name = config.k_format if k else config.v_format
        raise BadInput(
            f"{name} brings its own blocks of {BLOCKS[name]} channels of a token",
            "leave the granularity out, or give it to the other side: k4vnvfp4-kc, k8vmxfp4-g64",
        )


def _check_bits(config: Configuration) -> None:
    if not config.weight_format and config.weight_bits not in WEIGHT_BITS:
        raise BadInput(f"w{config.weight_bits} is not a weight format", "weights are w16, w8 or w4")
    if config.activation_bits not in ACTIVATION_BITS:
        raise BadInput(
            f"activations are 16-bit or 8-bit, not {config.activation_bits}",
            "write w4a16, w8a16 or w16a16, or w4a8 for prompts in 8 bits",
        )
    if config.activation_bits < 16 and (config.weight_bits != 4 or config.weight_format):
        raise BadInput(
            f"8-bit activations go with 4-bit weights, not in {config}",
            "write w4a8, or leave activations in 16 bits",
        )
    named_sides = ("k", config.k_bits, config.k_format), ("v", config.v_bits, config.v_format)
    pairs = [(side, bits) for side, bits, name in named_sides if not name]
    if config.protection is not None:
        pairs += [("k", config.protection.k_bits), ("v", config.protection.v_bits)]
        layers = config.protection.layers
        if not layers or list(layers) != sorted(set(layers)):
            raise BadInput("protected layers must be given once each, in order", HINT)
    if config.rope_bits not in ROPE_BITS:
        raise BadInput(
            f"+rope{config.rope_bits} is not a format of rotary keys", "they take 16, 8 or 4 bits"
        )
    for side, bits in pairs:
        if bits not in KV_BITS:
            raise BadInput(
                f"{side}{bits} is not a KV format",
                "keys and values take 16, 8, 6, 5, 4, 3 or 2 bits",
            )
    clips = [bits in CLIPPED for _, bits in pairs]
    if not 50 <= config.clip <= 100 or (config.clip < 100 and not any(clips)):
        raise BadInput(
            f"+clip{config.clip} clips nothing, or too much",
            "keys or values of 2 or 3 bits can be clipped to 50 to 99 % of their range: +clip70",
        )


def _check_granularity(config: Configuration) -> None:
    if config.group_size is not None and config.group_size not in GROUP_SIZES:
        raise BadInput(
            f"-g{config.group_size} is not a group size", "groups are 32, 64, 128 or left out"
        )
    blocked = config.granularity in (Granularity.PER_CHANNEL, Granularity.PER_BLOCK)
    if blocked != (config.block_tokens is not None):
        raise BadInput("token blocks belong to -kc and -pb, and they need one", HINT)
    if config.block_tokens is not None and config.block_tokens not in (16, 32, 64, 128, 256):
        raise BadInput(
            f"token blocks of {config.block_tokens} are not supported",
            "blocks are 16 to 256 tokens, a power of two",
        )
    if config.granularity is Granularity.PER_TENSOR and config.group_size is not None:
        raise BadInput(
            "-pt has one scale a tensor, so -g means nothing there", "leave one of them out"
        )
    plain = (config.granularity, config.group_size) == (Granularity.PER_TOKEN, None)
    needs_bits = not plain or config.smoothing or config.rotation or config.residual or config.sinks
    needs_bits = needs_bits or config.rope_bits < 16 or config.affine
    if config.affine and (config.smoothing or config.rotation):
        raise BadInput(
            "+affine rotates and centres keys itself", "leave +smooth and +rot out beside it"
        )
    if needs_bits and not config.quantizes_kv:
        raise BadInput(
            "nothing is quantized, so granularity, smoothing, rotation and windows mean nothing",
            "lower the K or V bits, or leave those parts out",
        )
