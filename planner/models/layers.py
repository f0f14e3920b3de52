"""What a decoder layer is made of: mixers, FFNs, and the layer that joins them.

A *mixer* moves information between tokens (attention, linear attention, a state space), an *FFN*
works within one token. spec.py, which describes whole models, gives these names to other rooms.
"""

from ..errors import BadConfig
from ..light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Indexer:
    """Sparse-attention indexer (DeepSeek DSA): its own cached key per token.

    `width`: elements cached for each token where they are not one key of `head_dim` (0 = that).
    `dtype`: how they are kept (None = the model's). `position_bytes`: positions kept beside them.
    """

    heads: int
    head_dim: int
    top_k: int
    width: int = 0
    dtype: str | None = None
    position_bytes: int = 0

    @property
    def cached_width(self) -> int:
        return self.width or self.head_dim


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax attention over a KV cache: MHA, MQA or GQA, full, sliding or local.

    `window`: a token sees itself and the window - 1 before it (sliding).
    `local_chunk`: a token sees only its own aligned chunk of that many tokens (Llama 4).
    `shares_kv_with`: index of the layer whose cache this one reads; it then stores none.
    `expanded_heads`: heads that transformers' cache holds where it repeats the KV heads first.
    `indexer`: a sparse-attention indexer that caches a key of its own per token (MiniMax M3).
    """

    query_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    local_chunk: int | None = None
    shares_kv_with: int | None = None
    qk_norm: bool = False
    qkv_bias: bool = False
    sinks: bool = False
    output_gate: bool = False
    rope: bool = True
    rotary_dim: int = 0
    """Channels of each head that RoPE turns; 0 = all of them (where `rope`)."""
    softcap: float | None = None
    expanded_heads: int | None = None
    indexer: Indexer | None = None

    def window_within(self, tokens: int) -> int | None:
        """The window, None where it hides nothing of `tokens` tokens."""
        return None if self.window is None or self.window >= tokens else self.window

    def reach_within(self, tokens: int) -> int | None:
        """The window or the local chunk, None where it hides nothing of `tokens` tokens."""
        if self.local_chunk is None:
            return self.window_within(tokens)
        return None if self.local_chunk >= tokens else self.local_chunk


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """MLA: caches one latent of `kv_rank` and one rotary key of `rope_dim` per token.

    `rope_dim` is 0 where no part of a key turns (GLM-5.3). `window` as in Attention.
    """

    query_heads: int
    query_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    indexer: Indexer | None = None
    window: int | None = None

    @property
    def packed(self) -> bool:
        """Whether the kvpareto runtime packs it: no indexer chooses tokens, no window hides any,
        and a rotary key lies beside each latent."""
        return self.indexer is None and self.window is None and self.rope_dim > 0


@dataclass(frozen=True, slots=True)
class RecurrentState:
    """A mixer whose state does not grow: linear attention, Mamba, RWKV, short convolutions.

    `state` and `conv` are elements per sequence; `*_dtype` is how transformers keeps them
    (None = the model's dtype). `heads`, `key_dim`, `value_dim` describe the scan.
    """

    kind: str  # "gated_delta", "mamba1", "mamba2", "short_conv", "rwkv", "lightning"
    state: int
    conv: int
    heads: int
    key_dim: int
    value_dim: int
    width: int
    """Inner width: channels the mixer works on per token (its projections' output)."""
    state_dtype: str | None = None
    conv_dtype: str | None = None
    block: int = 0
    """Tokens of a block of the scan, where it works in blocks of a size the config names."""
    decays_by_channel: bool = False
    """A gated delta net whose every key channel decays on its own (Kimi delta attention)."""


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """DeepSeek V4: a window of shared keys = values, and one entry for every `rate` tokens.

    `overlaps`: entries span two windows of tokens, so the last one's half is carried along, and
    an `indexer` with small entries of its own chooses among them.
    """

    query_heads: int
    head_dim: int
    window: int
    rate: int
    overlaps: bool
    indexer: Indexer | None = None


Mixer = Attention | LatentAttention | CompressedAttention | RecurrentState


@dataclass(frozen=True, slots=True)
class DenseFFN:
    """Two matrices over `width` channels, three where a gate is beside them."""

    width: int
    gated: bool = True
    activation: str = "silu"


@dataclass(frozen=True, slots=True)
class MoEFFN:
    """`experts` FFNs of `width` channels, of which a token passes `top_k`. Raises BadConfig."""

    experts: int
    top_k: int
    width: int
    shared_width: int = 0
    """Summed width of the shared experts (or of the dense branch beside the routed one)."""
    gated: bool = True
    activation: str = "silu"

    def __post_init__(self) -> None:
        if self.top_k > self.experts:
            raise BadConfig(
                f"config.json routes a token to {self.top_k} of {self.experts} experts",
                "compare with the model's published config.json",
            )


FFN = DenseFFN | MoEFFN


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. Several mixers run in parallel (Falcon-H1); none is an FFN-only block."""

    mixers: tuple[Mixer, ...]
    ffn: FFN | None
    sandwich_norms: bool = False
    """Norms after attention and FFN as well as before (Gemma 2/3)."""
    parallel: bool = False
    """Attention and FFN read the same normalised input (GPT-J, Falcon-7B, Command)."""
