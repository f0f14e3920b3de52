"""The KV cache's formats: from a configuration and a layer's shape to named buffers.

This is the one definition of what the cache holds. The planner sums the buffers' bytes;
the runtime allocates these very buffers (names, shapes, dtypes), and a test holds the two
together to the byte for every format.

Layouts, for B sequences, H KV heads, D channels, P packed tokens, G groups of g channels:

    {k,v}_values    uint8  [B, H, P, D_bytes]    codes (16 bits: bfloat16 [B, H, P, D]); 3, 5 and
                                                 6 bits in two parts (code_tables.planes)
    {k,v}_scale     fp16   [B, H, P, G, 2]       (scale, offset), per token
                           [B, H, P/b, D, 2]     per channel, blocks of b tokens (keys only)
                           [B, H, P/b, G, 2]     per block
                           [B, P, 2]             per tensor: a chunk's pair, repeated for its tokens
                    uint8  [B, H, P, G]          of nvfp4 and mxfp4, whose blocks are the groups
    {k,v}_tensor    fp32   [B, H]                what nvfp4's scales are multiples of
    {k,v}_residual  bf16   [B, H, R, D]          tokens not packed (yet)
    {k,v}_sinks     bf16   [B, H, S, D]          first tokens, never packed
    k_mean          fp32   [B, H, D]             K-smoothing
    {k,v}_affine    fp16   [H, 2 D + 1, D]       affine maps: there, back, mean

A value is level(code) * scale + offset, with the code itself as the level of integers, and the
others of code_tables.py. The offset is the group's minimum, not an integer zero
point, because a key bias far from zero (Qwen2.5) would cost a zero point all its precision.
"""

from dataclasses import replace
from functools import lru_cache
from math import prod

from ..errors import BadInput
from ..light_dataclass import dataclass
from .code_tables import BLOCKS, CODED, NVFP4, row_bytes
from .configuration import CLIPPED, Configuration, Granularity
from .dtypes import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class Buffer:
    """One tensor of the cache: torch dtype name and shape."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class SideFormat:
    """How one side (K or V) of one layer is stored.

    `block` is the number of tokens that are packed together: 1 where tokens stream freely.
    `buffered` is the number of most recent tokens that stay in 16 bits.
    """

    side: str
    bits: int
    granularity: Granularity
    group_size: int | None
    block: int
    buffered: int
    sinks: int
    smoothing: bool
    table: str = ""
    """What codes stand for, a name of code_tables.CODED; "" = integers."""
    clip: int = 100
    """Percent of a group's range that the codes span."""
    affine: bool = False

    @property
    def quantized(self) -> bool:
        return self.bits < 16

    @property
    def residual_capacity(self) -> int:
        """Tokens the 16-bit buffer can hold: `buffered`, and a block being filled."""
        return self.buffered + (self.block if self.block > 1 else 0)

    def groups(self, dim: int) -> int:
        """Groups a head of `dim` channels falls into; the last may be narrower."""
        return -(-dim // self.group_width(dim))

    def group_width(self, dim: int) -> int:
        return min(self.group_size or dim, dim)

    def shared_values(self, dim: int) -> int:
        """Values that share a scale, in heads of `dim` channels."""
        match self.granularity:
            case Granularity.PER_TENSOR:
                return 2**20
            case Granularity.PER_CHANNEL:
                return self.block
            case _:
                return self.group_width(dim) * self.block

    def within(self, tokens: int) -> "SideFormat":
        """The format of a cache that holds `tokens`: no more sinks than that have a place."""
        return self if self.sinks <= tokens else replace(self, sinks=tokens)

    def packed_tokens(self, tokens: int) -> int:
        """Tokens held as codes once `tokens` have been appended: whole blocks only."""
        if not self.quantized:
            return tokens
        settled = max(0, tokens - self.sinks - self.buffered)
        return settled // self.block * self.block

    def buffers(self, batch: int, heads: int, dim: int, tokens: int) -> tuple[Buffer, ...]:
        """Buffers for a capacity of `tokens` tokens of `heads` heads x `dim` channels."""
        if self.sinks > tokens:
            return self.within(tokens).buffers(batch, heads, dim, tokens)
        s, packed = self.side, self.packed_tokens(tokens)
        if not self.quantized:
            return (Buffer(f"{s}_values", (batch, heads, packed, dim), "bfloat16"),)
        shape = self._scale_shape(batch, heads, dim, packed)
        scale = (shape[:-1], "uint8") if self.table in BLOCKS else (shape, "float16")
        buffers = [
            Buffer(f"{s}_values", (batch, heads, packed, row_bytes(dim, self.bits)), "uint8"),
            Buffer(f"{s}_scale", *scale),
        ]
        if self.table == NVFP4:
            buffers.append(Buffer(f"{s}_tensor", (batch, heads), "float32"))
        residual = min(self.residual_capacity, max(0, tokens - self.sinks))
        if residual:
            buffers.append(Buffer(f"{s}_residual", (batch, heads, residual, dim), "bfloat16"))
        if self.sinks:
            buffers.append(Buffer(f"{s}_sinks", (batch, heads, self.sinks, dim), "bfloat16"))
        if self.smoothing:
            buffers.append(Buffer(f"{s}_mean", (batch, heads, dim), "float32"))
        if self.affine:
            buffers.append(Buffer(f"{s}_affine", (heads, 2 * dim + 1, dim), "float16"))
        return tuple(buffers)

    def _scale_shape(self, batch: int, heads: int, dim: int, packed: int) -> tuple[int, ...]:
        match self.granularity:
            case Granularity.PER_TOKEN:
                return (batch, heads, packed, self.groups(dim), 2)
            case Granularity.PER_CHANNEL:
                return (batch, heads, packed // self.block, dim, 2)
            case Granularity.PER_BLOCK:
                return (batch, heads, packed // self.block, self.groups(dim), 2)
            case Granularity.PER_TENSOR:
                return (batch, packed, 2)


@dataclass(frozen=True, slots=True)
class KVFormat:
    """The K and V formats of one layer under a configuration."""

    key: SideFormat
    value: SideFormat

    @classmethod
    def of(cls, config: Configuration, layer: int) -> "KVFormat":
        """The format of `layer`. Raises BadInput for formats that other engines alone have."""
        for name in (config.k_format, config.v_format):
            if name and name not in CODED:
                raise BadInput(f"our cache holds no {name}", "give K and V as bits: k8v4-g64")
        return _format(config, *config.layer_bits(layer), *config.layer_tables(layer))

    @classmethod
    def at_bits(cls, config: Configuration, k_bits: int, v_bits: int) -> "KVFormat":
        """The format of a layer with integers of these bits and the rest of `config`."""
        return _format(config, k_bits, v_bits)

    def of_latent(self, rope_bits: int) -> "KVFormat":
        """The format of latent attention: latents are the keys, rotary keys the values."""
        group = None if self.value.table in BLOCKS else self.value.group_size
        plain = replace(self.value, table="", clip=100, affine=False, group_size=group)
        return KVFormat(self.key, replace(plain, bits=rope_bits))

    def buffers(
        self, batch: int, heads: int, key_dim: int, value_dim: int, tokens: int
    ) -> tuple[Buffer, ...]:
        """All buffers of one layer that can hold `tokens` tokens.

        A head without value channels (`value_dim` 0, a latent without rotary keys) has no V
        buffers.
        """
        keys = self.key.buffers(batch, heads, key_dim, tokens)
        values = self.value.buffers(batch, heads, value_dim, tokens) if value_dim else ()
        return keys + values

    def capacity(self, window: int | None, tokens: int, chunk: int | None) -> int:
        """Tokens to give `buffers` for a layer with this window: see `window_capacity`.

        A layer that slides reuses slots, so it needs more than its window where slots are not
        free the moment a token leaves it: sinks keep theirs, and a block is overwritten whole,
        so one that straddles the window's edge must stay and one more must be filling.
        """
        needed = window_capacity(window, tokens, chunk)
        sides = (self.key, self.value)
        block = max(side.block if side.quantized else 1 for side in sides)
        sinks = max(side.sinks if side.quantized else 0 for side in sides)
        return min(tokens, needed + sinks + (2 * block - 1 if block > 1 else 0))

    def nbytes(self, batch: int, heads: int, key_dim: int, value_dim: int, tokens: int) -> int:
        return sum(b.nbytes for b in self.buffers(batch, heads, key_dim, value_dim, tokens))


@lru_cache(maxsize=4096)
def _format(
    config: Configuration, k_bits: int, v_bits: int, k_table: str = "", v_table: str = ""
) -> KVFormat:
    per_channel = config.granularity is Granularity.PER_CHANNEL
    value_granularity = Granularity.PER_TOKEN if per_channel else config.granularity
    value_block = 1 if per_channel else config.block_tokens or 1

    def side(name: str, bits: int, table: str, granularity: Granularity, block: int) -> SideFormat:
        if table in BLOCKS:
            granularity, block = Granularity.PER_TOKEN, 1
        return SideFormat(
            side=name,
            bits=bits,
            granularity=granularity,
            group_size=BLOCKS.get(table, config.group_size),
            block=block,
            buffered=config.residual,
            sinks=config.sinks,
            smoothing=name == "k" and config.smoothing and bits < 16,
            table=table,
            clip=100 if table or bits not in CLIPPED else config.clip,
            affine=config.affine and bits < 16,
        )

    return KVFormat(
        key=side("k", k_bits, k_table, config.granularity, config.block_tokens or 1),
        value=side("v", v_bits, v_table, value_granularity, value_block),
    )


def window_capacity(window: int | None, tokens: int, chunk: int | None) -> int:
    """Tokens a layer must be able to hold while `tokens` are prefilled in chunks of `chunk`.

    A layer that sees a window of w tokens needs the w - 1 before a chunk and the chunk itself;
    decoding is a chunk of one. `chunk` None is one shot: the window never frees anything.
    """
    if window is None:
        return tokens
    return min(tokens, window - 1 + (chunk if chunk is not None else tokens))
