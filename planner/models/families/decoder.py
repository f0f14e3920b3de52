"""The frame every decoder shares: embedding, layers of a few kinds, final norm, head.

A family says how its layers fall into kinds and how one layer of a kind is built. Each kind is
built once and counted as often as it occurs, so that reading a model costs as much as it has
kinds of layers, not layers.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

from ...light_dataclass import dataclass
from ..config_fields import Fields
from ..spec import FFN, Bounds, Layer, Mixer, Reading, Role
from ..tensor_list import Tensors

LEGACY_LAYER_TYPES = {
    "mamba": "linear_attention",
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
    "qwen_sparse_attention": "indexed_attention",
}

Kind = TypeVar("Kind", bound=Hashable)


@dataclass(eq=False)
class Block:
    """Where a layer is being built: its model's fields, the tensor list, the stream's width."""

    f: Fields
    t: Tensors
    hidden: int


@dataclass(eq=False)
class Decoder:
    """What a family hands back: the text model of a ModelSpec."""

    hidden: int
    vocab: int
    max_context: int | None
    layers: tuple[Layer, ...]
    tied_embeddings: bool = False
    norm: str = "rms"
    logit_softcap: float | None = None
    bounds: tuple[Bounds, ...] = ()
    text_type: str = ""
    readings: tuple[Reading, ...] = ()


Builder = Callable[[Block, str], Mixer | tuple[Mixer, ...]]
FfnBuilder = Callable[[Block, str], FFN | None]


@dataclass(eq=False)
class Style:
    """How a family's decoder differs from Llama's.

    `attention` and `ffn` add one layer's tensors (inside its scope) and describe it. `norms` are
    the layer's norms over the residual stream. `kinds` gives each layer's attention kind,
    `ffn_kinds` each layer's FFN kind. `head_bias` and `parallel` may
    name a field. `ties`: whether the class
    can tie the head to the embeddings at all. `embed_extra`: rows beyond the vocabulary.
    """

    attention: Builder
    ffn: FfnBuilder
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm: str = "rms"
    norm_bias: bool = False
    embed: str = "embed_tokens"
    final_norm: str | None = "norm"
    head: str = "lm_head"
    head_bias: bool | str = False
    layers: str = "layers"
    prefix: str = "model."
    count: Callable[[Fields], int] = Fields.layers
    kinds: Callable[[Fields, int], Sequence[str]] | None = None
    ffn_kinds: Callable[[Fields, int], Sequence[str]] | None = None
    extra: Callable[[Block], None] | None = None
    parallel: bool | str = False
    sandwich: bool = False
    softcap: str | None = None
    tied_alias: str = ""
    ties: bool = True
    embed_width: str = ""
    embed_extra: int = 0

    def but(self, **changes: object) -> "Style":
        return replace(self, **changes)  # type: ignore[arg-type]


def layer_types(f: Fields, layers: int) -> list[str] | None:
    """The config's own `layer_types` in transformers' present words, or None."""
    given = f.texts("layer_types", layers)
    return [LEGACY_LAYER_TYPES.get(kind, kind) for kind in given] if given is not None else None


def attention_kinds(f: Fields, layers: int) -> list[str]:
    """What transformers' cache makes of a config that has no pattern of its own.

    Its rule: `layer_types`, else a `sliding_window` makes every layer slide, else an
    `attention_chunk_size` makes every layer local, else attention is full.
    """
    given = layer_types(f, layers)
    if given is not None:
        return given
    if f.optional_count("sliding_window") is not None:
        return ["sliding_attention"] * layers
    if f.optional_count("attention_chunk_size") is not None:
        return ["chunked_attention"] * layers
    return ["full_attention"] * layers


def build_layers(
    t: Tensors, prefix: str, kinds: Sequence[Kind], build: Callable[[Kind], Layer]
) -> tuple[Layer, ...]:
    """Build each distinct kind once, its tensors counted as often as it occurs."""
    built: dict[Kind, Layer] = {}
    for kind, times in Counter(kinds).items():
        with t.scope(prefix, times):
            built[kind] = build(kind)
    return tuple(built[kind] for kind in kinds)


def text_decoder(
    f: Fields,
    t: Tensors,
    style: Style,
    *,
    tied: bool | None = None,
    prefix: str | None = None,
    head_prefix: str = "",
) -> Decoder:
    """A whole text model of the given style; the prefixes are where a multimodal one nests it."""
    prefix = style.prefix if prefix is None else prefix
    layers, hidden, vocab = style.count(f), f.count("hidden_size"), f.count("vocab_size")
    if tied is None:
        older = bool(style.tied_alias) and f.has(style.tied_alias)
        tied = style.ties and f.flag(style.tied_alias if older else "tie_word_embeddings")
    narrow = (f.optional_count(style.embed_width) if style.embed_width else None) or hidden
    block = Block(f, t, hidden)
    mixer_kinds = (style.kinds or attention_kinds)(f, layers)
    ffns = style.ffn_kinds(f, layers) if style.ffn_kinds else ["dense"] * layers
    parallel = f.flag(style.parallel) if isinstance(style.parallel, str) else style.parallel

    def layer(kind: tuple[str, str]) -> Layer:
        mixer = style.attention(block, kind[0])
        ffn = style.ffn(block, kind[1])
        for name in style.norms:
            t.norm(name, hidden, style.norm_bias)
        mixers = mixer if isinstance(mixer, tuple) else (mixer,)
        return Layer(mixers, ffn, sandwich_norms=style.sandwich, parallel=parallel)

    with t.scope(prefix):
        t.embedding(style.embed, vocab + style.embed_extra, narrow)
        if style.extra:
            style.extra(block)
        kinds = list(zip(mixer_kinds, ffns, strict=True))
        built = build_layers(t, f"{style.layers}.*.", kinds, layer)
        if style.final_norm:
            t.norm(style.final_norm, hidden, style.norm_bias)
    head_bias = f.flag(style.head_bias) if isinstance(style.head_bias, str) else style.head_bias
    if not tied:
        t.head(head_prefix + style.head, narrow, vocab, head_bias)
    elif head_bias:
        t.add(f"{style.head}.bias", (vocab,), Role.BIAS)
    return Decoder(
        hidden=hidden,
        vocab=vocab,
        max_context=max_context(f),
        layers=built,
        tied_embeddings=tied,
        norm=style.norm,
        logit_softcap=f.number(style.softcap) if style.softcap else None,
        text_type=f.kind,
    )


def max_context(f: Fields) -> int | None:
    """Positions the model was made for."""
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        length = f.optional_count(name, high=2**31)
        if length is not None:
            return length
    return None
