"""Zamba 1 and 2: Mamba layers; some are led by transformer blocks that all of them share.

The block sees the stream beside the embeddings, so it is twice as wide.
"""

from ...config_fields import Fields
from ...spec import Attention, Layer, RecurrentState, Role
from ...tensor_list import Tensors
from ..blocks.ffn import gated
from ..blocks.layer_types import LINEAR
from ..blocks.recurrent import inner_width, mamba1_state, mamba2, time_step_rank
from ..decoder import Block, Decoder, build_layers, max_context

HYBRID = "hybrid"


def zamba_kinds(f: Fields, layers: int) -> list[str]:
    given = f.texts("layers_block_type", layers) or f.texts("layer_types", layers)
    if given is not None:
        return [HYBRID if kind == HYBRID else LINEAR for kind in given]
    every, at = f.count("attn_layer_period"), f.count("attn_layer_offset", low=0)
    rest = [HYBRID if i % every == at else LINEAR for i in range(layers - 3)]
    return [LINEAR, LINEAR, HYBRID, *rest][:layers]


def zamba(f: Fields, t: Tensors) -> Decoder:
    """The block's weights exist once where embeddings are tied, else once for each use."""
    layers, hidden, vocab = f.layers(), f.count("hidden_size"), f.count("vocab_size")
    kinds, b = zamba_kinds(f, layers), Block(f, t, hidden)
    tied = f.flag("tie_word_embeddings")
    query = f.count("num_attention_heads")
    kv = f.count("num_key_value_heads", query)
    dim = f.count("attention_head_dim", max(1, 2 * hidden // query))

    def layer(kind: str) -> Layer:
        if kind == LINEAR:
            return Layer((_mamba(b, ""),), None)
        t.linear("linear", hidden, hidden)
        return Layer(
            (Attention(query, kv, dim, dim, rope=False), _mamba(b, "mamba_decoder.")), None
        )

    uses = kinds.count(HYBRID)
    with t.scope("model."):
        t.embedding("embed_tokens", vocab, hidden)
        built = build_layers(t, "layers.*.", kinds, layer)
        with t.scope("layers.*.shared_transf.", min(1, uses) if tied else uses):
            wide = f.count("attention_hidden_size", 2 * hidden)
            with t.scope("self_attn."):
                t.linear("q_proj", wide, query * dim)
                t.linear("k_proj", wide, kv * dim)
                t.linear("v_proj", wide, kv * dim)
                t.linear("o_proj", query * dim, hidden)
            gated(b, scope="feed_forward.")
            t.norm("input_layernorm", wide)
            t.norm("pre_ff_layernorm", hidden)
        t.norm("final_layernorm", hidden)
    if not tied:
        t.head("lm_head", hidden, vocab)
    return Decoder(hidden, vocab, max_context(f), built, tied)


def _mamba(b: Block, scope: str) -> RecurrentState:
    """Mamba whose scan is cut into heads, each with projections of its own."""
    f, t = b.f, b.t
    inner, heads = inner_width(f, "mamba_expand", b.hidden), f.count("n_mamba_heads")
    state, kernel = f.count("mamba_d_state"), f.count("mamba_d_conv")
    rank, each = time_step_rank(f, "mamba_dt_rank", b.hidden), inner // heads
    bias = f.flag("mamba_proj_bias")
    with t.scope(scope):
        t.norm("input_layernorm", b.hidden)
        with t.scope("mamba."):
            t.add("x_proj_weight", (heads, rank + 2 * state, each), Role.LINEAR)
            t.add("dt_proj_weight", (heads, each, rank), Role.LINEAR)
            t.add("dt_proj_bias", (heads, each), Role.BIAS)
            t.add("A_log", (heads, each, state), Role.OTHER)
            t.add("D", (heads, each), Role.OTHER)
            t.add("conv1d.weight", (inner, 1, kernel), Role.CONV)
            if f.flag("mamba_conv_bias"):
                t.add("conv1d.bias", (inner,), Role.BIAS)
            t.linear("in_proj", b.hidden, 2 * inner, bias)
            t.linear("out_proj", inner, b.hidden, bias)
    return mamba1_state(inner, state, kernel)


_ZAMBA_DEFAULT = (
    [LINEAR]
    + ([LINEAR] * 5 + ["hybrid"]) * 7
    + [LINEAR] * 4
    + ["hybrid"]
    + [LINEAR] * 3
    + ["hybrid"]
    + [LINEAR] * 2
)


def zamba2(f: Fields, t: Tensors) -> Decoder:
    """Zamba 2: Mamba-2 layers; some are led by a transformer block whose weights they share.

    The block sees the stream beside the embeddings, so it is twice as wide. `num_mem_blocks`
    blocks exist and take turns; adapters tell their uses apart.
    """
    hidden, vocab = f.count("hidden_size"), f.count("vocab_size")
    listed = f.texts("layers_block_type") or f.texts("layer_types")
    kinds = ["hybrid" if kind == "hybrid" else LINEAR for kind in listed or _ZAMBA_DEFAULT]
    b = Block(f, t, hidden)
    head_count = f.count("n_mamba_heads")
    inner = inner_width(f, "mamba_expand", hidden)
    linear_bias = f.flag("add_bias_linear")

    def mamba(scope: str) -> RecurrentState:
        with t.scope(scope):
            t.norm("input_layernorm", hidden)
            return mamba2(
                b,
                heads=head_count,
                head_dim=inner // head_count,
                inner=inner,
                groups=f.count("mamba_ngroups"),
                state=f.count("mamba_d_state"),
                kernel=f.count("mamba_d_conv"),
                conv_bias=True,
                bias=linear_bias,
            )

    def layer(kind: str) -> Layer:
        if kind == LINEAR:
            return Layer((mamba(""),), None)
        t.linear("linear", hidden, hidden)
        query = f.count("num_attention_heads")
        kv = f.count("num_key_value_heads", query)
        dim = max(1, 2 * hidden // query)
        return Layer((Attention(query, kv, dim, dim), mamba("mamba_decoder.")), None)

    with t.scope("model."):
        t.embedding("embed_tokens", vocab, hidden)
        layers = build_layers(t, "layers.*.", kinds, layer)
        _zamba_blocks(b, kinds.count("hybrid"))
        t.norm("final_layernorm", hidden)
    tied = f.flag("tie_word_embeddings")
    if not tied:
        t.head("lm_head", hidden, vocab)
    return Decoder(hidden, vocab, max_context(f), layers, tied)


def _zamba_blocks(b: Block, uses: int) -> None:
    f, t, hidden = b.f, b.t, b.hidden
    blocks, rank, wide = f.count("num_mem_blocks"), f.count("adapter_rank"), 2 * hidden
    query = f.count("num_attention_heads")
    kv, dim = f.count("num_key_value_heads", query), max(1, wide // query)
    inner = f.count("intermediate_size", 4 * hidden)
    bias = f.flag("add_bias_linear")
    # Blocks share their weights by the same switch as the embeddings; unshared, each use of a
    # block has the adapters of all its uses.
    tied = f.flag("tie_word_embeddings")
    own = min(blocks, uses) if tied else uses
    adapters = uses if tied else sum(len(range(i % blocks, uses, blocks)) for i in range(uses))
    with t.scope("layers.*.shared_transformer.", own):
        t.linear("self_attn.q_proj", wide, query * dim)
        t.linear("self_attn.k_proj", wide, kv * dim)
        t.linear("self_attn.v_proj", wide, kv * dim)
        t.linear("self_attn.o_proj", query * dim, hidden)
        t.linear("feed_forward.gate_up_proj", hidden, 2 * inner, bias)
        t.linear("feed_forward.down_proj", inner, hidden, bias)
        t.norm("input_layernorm", wide)
        t.norm("pre_ff_layernorm", hidden)
    with t.scope("layers.*.shared_transformer.", adapters):
        t.linear("feed_forward.gate_up_proj_adapter_list.*.*", hidden, rank)
        t.linear("feed_forward.gate_up_proj_adapter_list.*.*", rank, 2 * inner)
        if f.flag("use_shared_attention_adapter"):
            for name in ("q", "k", "v"):
                t.linear(f"self_attn.linear_{name}_adapter_list.*.*", wide, rank)
                t.linear(f"self_attn.linear_{name}_adapter_list.*.*", rank, wide)


READERS = {"zamba": zamba, "zamba2": zamba2}
