"""Further hybrids: MiniMax-01, Kimi Linear, OLMo Hybrid, Zamba 2."""

from collections.abc import Sequence
from functools import partial

from ...config_fields import Fields
from ...spec import FFN, Attention, Layer, Mixer, RecurrentState, Role
from ...tensor_list import Tensors
from ..blocks.attention import gqa, heads
from ..blocks.ffn import gated, moe
from ..blocks.layer_types import FULL, LINEAR
from ..blocks.recurrent import inner_width, mamba2
from ..decoder import Block, Decoder, Style, build_layers, layer_types, max_context
from ..deepseek import mla
from ..llama import MISTRAL, OLMO2
from ..moe import all_moe


def lightning(b: Block) -> RecurrentState:
    """MiniMax's lightning attention: one matrix of head_dim squared for each head."""
    query, _, dim = heads(b.f, b.hidden)
    width = query * dim
    with b.t.scope("self_attn."):
        b.t.norm("norm", width)
        b.t.linear("qkv_proj", b.hidden, 3 * width)
        b.t.linear("out_proj", width, b.hidden)
        b.t.linear("output_gate", b.hidden, width)
    return RecurrentState("lightning", query * dim * dim, 0, query, dim, dim, 4 * width)


def minimax_mixer(b: Block, kind: str) -> Mixer:
    return lightning(b) if kind == LINEAR else gqa(b, kind)


def minimax_kinds(f: Fields, layers: int) -> Sequence[str]:
    """`layer_types`, or the 0s (linear) and 1s (softmax) of the first release's own files.

    transformers' class does not read that list, so it counts only under the older model types.
    """
    given = layer_types(f, layers)
    if given is None and f.kind != "minimax" and f.has("attn_type_list"):
        given = [FULL if kind else LINEAR for kind in f.counts("attn_type_list", layers) or ()]
    return given or [LINEAR if i % 2 else FULL for i in range(layers)]


def _linear(f: Fields, name: str, older: str) -> int:
    """Kimi Linear's sizes, under `linear_attn_config` in the published file."""
    section = f.mapping("linear_attn_config") or {}
    inner = Fields(section, kind=f.kind, path=f"{f.path}linear_attn_config.", notes=f.notes)
    return inner.count(older) if older in section else f.count(name)


def kimi_delta(b: Block, *, flat: bool = False) -> RecurrentState:
    """Kimi's delta attention: a gated delta net whose decay has a value for every channel.

    `flat`: the heads' decays lie in a vector, not in a tensor of four axes.
    """
    f, t = b.f, b.t
    count = _linear(f, "linear_num_heads", "num_heads")
    dim = _linear(f, "linear_head_dim", "head_dim")
    kernel = _linear(f, "linear_conv_kernel_dim", "short_conv_kernel_size")
    width = count * dim
    with t.scope("self_attn."):
        for name in ("q_proj", "k_proj", "v_proj"):
            t.linear(name, b.hidden, width)
        t.add("conv1d.weight", (3 * width, 1, kernel), Role.CONV)
        t.add("forget_gate.dt_bias", (width,), Role.OTHER)
        t.add("forget_gate.A_log", (count,) if flat else (1, 1, count, 1), Role.OTHER)
        for down, up in (
            ("forget_gate.f_a_proj", "forget_gate.f_b_proj"),
            ("g_a_proj", "g_b_proj"),
        ):
            t.linear(down, b.hidden, dim)
            t.linear(up, dim, width)
        t.linear("b_proj", b.hidden, count)
        t.norm("o_norm", dim)
        t.linear("o_proj", width, b.hidden)
    return RecurrentState(
        "gated_delta",
        state=count * dim * dim,
        conv=3 * width * kernel,
        heads=count,
        key_dim=dim,
        value_dim=dim,
        width=4 * width,
        state_dtype="float32",
    )


def kimi_mixer(b: Block, kind: str) -> Mixer:
    return mla(b) if kind == FULL else kimi_delta(b)


def kimi_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    if given is not None:
        return given
    section = f.mapping("linear_attn_config") or {}
    inner = Fields(section, kind=f.kind, path=f"{f.path}linear_attn_config.", notes=f.notes)
    full = inner.counts("full_attn_layers")
    if full is None:
        return [FULL if i and i % 4 == 0 else LINEAR for i in range(layers)]
    return [FULL if i + 1 in full else LINEAR for i in range(layers)]


def kimi_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    dense = f.count("first_k_dense_replace", 1, low=0)
    given = f.texts("mlp_layer_types", layers)
    return given or ["dense" if i < dense else "sparse" for i in range(layers)]


def kimi_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b)
    shared = b.f.count("n_shared_experts", 0, low=0) * b.f.count("moe_intermediate_size")
    return moe(b, shared="shared_experts", shared_width=shared)


def olmo_hybrid_mixer(b: Block, kind: str) -> Mixer:
    """OLMo Hybrid: its linear layers have norms before, its softmax layers after."""
    f, t = b.f, b.t
    if kind == FULL:
        t.norm("post_attention_layernorm", b.hidden)
        t.norm("post_feedforward_layernorm", b.hidden)
        return gqa(b, kind, bias="attention_bias", qk_norm="width")
    t.norm("input_layernorm", b.hidden)
    t.norm("post_attention_layernorm", b.hidden)
    query = f.count("num_attention_heads")
    keys, values = f.count("linear_num_key_heads", query), f.count("linear_num_value_heads", query)
    key_dim = f.count("linear_key_head_dim", int(0.75 * b.hidden / keys))
    value_dim = f.count("linear_value_head_dim", 2 * key_dim)
    kernel = f.count("linear_conv_kernel_dim")
    key_width, value_width = keys * key_dim, values * value_dim
    mixed = 2 * key_width + value_width
    with t.scope("linear_attn."):
        t.add("A_log", (values,), Role.OTHER)
        t.add("dt_bias", (values,), Role.OTHER)
        t.linear("q_proj", b.hidden, key_width)
        t.linear("k_proj", b.hidden, key_width)
        t.linear("v_proj", b.hidden, value_width)
        t.linear("a_proj", b.hidden, values)
        t.linear("b_proj", b.hidden, values)
        t.linear("g_proj", b.hidden, value_width)
        t.linear("o_proj", value_width, b.hidden)
        t.add("conv1d.weight", (mixed, 1, kernel), Role.CONV)
        t.norm("o_norm", value_dim)
    return RecurrentState(
        "gated_delta",
        state=values * key_dim * value_dim,
        conv=mixed * kernel,
        heads=values,
        key_dim=key_dim,
        value_dim=value_dim,
        width=mixed + value_width,
        state_dtype="float32",
    )


def olmo_hybrid_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    if given is not None:
        return given
    kinds = [FULL if i % 4 == 3 else LINEAR for i in range(layers)]
    return kinds if FULL in kinds else [*kinds[:-1], FULL]


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


STYLES: dict[str, Style] = {
    "minimax": MISTRAL.but(
        attention=minimax_mixer,
        ffn=partial(moe, experts_field="num_local_experts", width="intermediate_size"),
        ffn_kinds=all_moe,
        kinds=minimax_kinds,
    ),
    "kimi_linear": Style(
        attention=kimi_mixer,
        ffn=kimi_ffn,
        kinds=kimi_kinds,
        ffn_kinds=kimi_ffn_kinds,
        ties=False,
    ),
    "olmo_hybrid": OLMO2.but(attention=olmo_hybrid_mixer, kinds=olmo_hybrid_kinds, norms=()),
}
READERS = {"zamba2": zamba2}
