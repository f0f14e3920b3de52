"""A configuration: every choice that decides memory, accuracy and speed, in one grammar.

    w4a16-k4v4-g64+smooth+rot+res128+sink4+protect{0,27}:k8v8+pc256

reads: weights at 4 bits, activations at 16; keys and values at 4 bits, one scale and offset
for each token, head and group of 64 channels; keys smoothed, heads rotated; the last 128
tokens and the first 4 kept in 16 bits; layers 0 and 27 protected at 8 bits; prefill in chunks
of 256 tokens. What is left out is the default: one group a head, no smoothing, no rotation,
no window, no sinks, no protected layers, prefill in one shot.

    -kc     keys per channel in blocks of 32 tokens (`-kc128`: of 128), values per token
    -pb128  keys and values in tiles of 128 tokens x g channels
    -pt     one scale and offset for a whole layer's K, and one for its V, of each chunk
    +pcdyn  the chunk follows a memory target as the cache fills

Printing a parsed configuration gives its canonical text; parsing that gives it back.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from ..errors import BadInput

WEIGHT_BITS = (16, 8, 4)
KV_BITS = (16, 8, 4, 2)
GROUP_SIZES = (32, 64, 128)
CHUNKS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
DEFAULT_CHANNEL_BLOCK = 32  # tokens a per-channel key block spans: KIVI's choice (arXiv 2402.02750)
MAX_TOKENS = 2**31

_HINT = "write it like w4a16-k4v4-g64+pc256; `kvpareto estimate --help` draws the grammar"
_HEAD = re.compile(r"w(\d+)a(\d+)-k(\d+)v(\d+)((?:-[a-z]+\d*)*)((?:\+.*)?)", re.ASCII | re.DOTALL)
_PROTECT = re.compile(r"protect\{(\d{1,6}(?:,\d{1,6})*)\}:k(\d+)v(\d+)", re.ASCII)


class Granularity(StrEnum):
    """What shares one scale and one offset."""

    PER_TOKEN = "per-token"
    PER_CHANNEL = "per-channel"
    PER_BLOCK = "per-block"
    PER_TENSOR = "per-tensor"


@dataclass(frozen=True, slots=True, order=True)
class Protection:
    """Layers that keep their own K and V bits, usually more than the rest."""

    layers: tuple[int, ...]
    k_bits: int
    v_bits: int


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

    def __post_init__(self) -> None:
        _check_bits(self)
        _check_granularity(self)
        for name, value in (("res", self.residual), ("sink", self.sinks), ("pc", self.chunk or 0)):
            if not 0 <= value <= MAX_TOKENS:
                raise BadInput(f"{name}{value} is out of range", _HINT)
        if self.dynamic_chunk and self.chunk is not None:
            raise BadInput("a chunk is either fixed or dynamic, not both", _HINT)

    @property
    def quantizes_kv(self) -> bool:
        protected = self.protection is not None and (
            self.protection.k_bits < 16 or self.protection.v_bits < 16
        )
        return self.k_bits < 16 or self.v_bits < 16 or protected

    @property
    def largest_chunk(self) -> int | None:
        """The most tokens appended at once; None = the whole prompt."""
        return CHUNKS[-1] if self.dynamic_chunk else self.chunk

    def layer_bits(self, layer: int) -> tuple[int, int]:
        """(K bits, V bits) of one layer, protection applied."""
        if self.protection is not None and layer in self.protection.layers:
            return self.protection.k_bits, self.protection.v_bits
        return self.k_bits, self.v_bits

    def with_chunk(self, chunk: int | None) -> Self:
        return replace(self, chunk=chunk, dynamic_chunk=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the grammar above. Raises BadInput naming the part that is wrong."""
        match = _HEAD.fullmatch(text.strip()) if len(text) <= 2000 else None
        if match is None:
            raise BadInput(f"not a configuration: {text!r}", _HINT)
        weight, activation, k, v = (_small_int(match[i], text) for i in range(1, 5))
        if activation != 16:
            raise BadInput(
                f"activations are 16-bit, not {activation}", "write w4a16, w8a16 or w16a16"
            )
        fields: dict[str, object] = {"weight_bits": weight, "k_bits": k, "v_bits": v}
        for part in match[5].split("-")[1:]:
            _read_granularity(part, fields)
        for part in match[6].split("+")[1:]:
            _read_option(part, fields)
        return cls(**fields)  # type: ignore[arg-type]

    def __str__(self) -> str:
        parts = [f"w{self.weight_bits}a16-k{self.k_bits}v{self.v_bits}"]
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


def _check_bits(config: Configuration) -> None:
    if config.weight_bits not in WEIGHT_BITS:
        raise BadInput(f"w{config.weight_bits} is not a weight format", "weights are w16, w8 or w4")
    pairs = [("k", config.k_bits), ("v", config.v_bits)]
    if config.protection is not None:
        pairs += [("k", config.protection.k_bits), ("v", config.protection.v_bits)]
        layers = config.protection.layers
        if not layers or list(layers) != sorted(set(layers)):
            raise BadInput("protected layers must be given once each, in order", _HINT)
    for side, bits in pairs:
        if bits not in KV_BITS:
            raise BadInput(
                f"{side}{bits} is not a KV format", "keys and values take 16, 8, 4 or 2 bits"
            )


def _check_granularity(config: Configuration) -> None:
    if config.group_size is not None and config.group_size not in GROUP_SIZES:
        raise BadInput(
            f"-g{config.group_size} is not a group size", "groups are 32, 64, 128 or left out"
        )
    blocked = config.granularity in (Granularity.PER_CHANNEL, Granularity.PER_BLOCK)
    if blocked != (config.block_tokens is not None):
        raise BadInput("token blocks belong to -kc and -pb, and they need one", _HINT)
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
    if needs_bits and not config.quantizes_kv:
        raise BadInput(
            "nothing is quantized, so granularity, smoothing, rotation and windows mean nothing",
            "lower the K or V bits, or leave those parts out",
        )


def _small_int(digits: str, text: str) -> int:
    if len(digits) > 12:
        raise BadInput(f"not a configuration: {text!r}", _HINT)
    return int(digits)


def _set(fields: dict[str, object], part: str, **values: object) -> None:
    if values.keys() & fields.keys():
        raise BadInput(f"{part!r} says something twice", _HINT)
    fields.update(values)


def _read_granularity(part: str, fields: dict[str, object]) -> None:
    match = re.fullmatch(r"(g|pb|pt|kc)(\d{0,6})", part, re.ASCII)
    if (
        match is None
        or (match[1] in ("g", "pb")) > bool(match[2])
        or (match[1] == "pt" and match[2])
    ):
        raise BadInput(f"'-{part}' is not a granularity", "use -g64, -pb128, -pt or -kc")
    number = int(match[2]) if match[2] else DEFAULT_CHANNEL_BLOCK
    match match[1]:
        case "g":
            _set(fields, part, group_size=number)
        case "pb":
            _set(fields, part, granularity=Granularity.PER_BLOCK, block_tokens=number)
        case "kc":
            _set(fields, part, granularity=Granularity.PER_CHANNEL, block_tokens=number)
        case _:
            _set(fields, part, granularity=Granularity.PER_TENSOR)


def _read_option(part: str, fields: dict[str, object]) -> None:
    if part == "smooth":
        _set(fields, part, smoothing=True)
    elif part == "rot":
        _set(fields, part, rotation=True)
    elif part == "pcdyn":
        _set(fields, part, chunk=None, dynamic_chunk=True)
    elif match := re.fullmatch(r"(res|sink|pc)([1-9]\d{0,9})", part, re.ASCII):
        names = {"res": "residual", "sink": "sinks", "pc": "chunk"}
        _set(fields, part, **{names[match[1]]: int(match[2])})
    elif match := _PROTECT.fullmatch(part):
        layers = tuple(sorted({int(x) for x in match[1].split(",")}))
        bits = _small_int(match[2], part), _small_int(match[3], part)
        _set(fields, part, protection=Protection(layers, *bits))
    else:
        raise BadInput(
            f"'+{part}' is not an option",
            "options are +smooth, +rot, +res128, +sink4, +protect{0,27}:k8v8, +pc256 and +pcdyn",
        )
