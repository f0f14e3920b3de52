"""The older decoders: GPT-2, -J, -Neo, -NeoX, -BigCode, CodeGen, Bloom, MPT, OPT and Falcon.

All have heads that divide the hidden size, an FFN without gate, layer norms with biases (MPT's
have none), and most fuse q, k and v into one matrix.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..config_fields import Fields
from ..spec import Attention, DenseFFN, Role
from .blocks.ffn import activation, plain
from .blocks.layer_types import FULL, SLIDING
from .decoder import Block, Style


def head_width(f: Fields, hidden: int) -> tuple[int, int]:
    """(heads, channels of one), which must share the hidden size exactly."""
    if f.flag("add_cross_attention"):
        raise f.wrong("add_cross_attention", True, "false: only decoders are planned")
    heads = f.count("num_attention_heads")
    if hidden % heads:
        raise f.wrong("num_attention_heads", heads, f"a divisor of the hidden size {hidden}")
    return heads, hidden // heads


def fused(
    b: Block,
    kind: str,
    *,
    qkv: str,
    out: str,
    bias: bool | str = True,
    kv_heads: int | None = None,
    transposed: bool = False,
) -> Attention:
    """One matrix for q, k and v. `transposed`: GPT-2's weights lie (in, out)."""
    heads, dim = head_width(b.f, b.hidden)
    kv = heads if kv_heads is None else kv_heads
    has_bias = b.f.flag(bias) if isinstance(bias, str) else bias
    width = b.hidden + 2 * kv * dim
    if transposed:
        b.t.add(f"{qkv}.weight", (b.hidden, width), Role.LINEAR)
        b.t.add(f"{qkv}.bias", (width,), Role.BIAS)
        b.t.add(f"{out}.weight", (b.hidden, b.hidden), Role.LINEAR)
        b.t.add(f"{out}.bias", (b.hidden,), Role.BIAS)
    else:
        b.t.linear(qkv, b.hidden, width, has_bias)
        b.t.linear(out, b.hidden, b.hidden, has_bias)
    return Attention(heads, kv, dim, dim, qkv_bias=has_bias)


def separate(
    b: Block,
    kind: str,
    *,
    scope: str,
    out: str = "out_proj",
    bias: bool = False,
    output_bias: bool = False,
) -> Attention:
    """As many KV heads as query heads, each projection with a matrix of its own."""
    heads, dim = head_width(b.f, b.hidden)
    with b.t.scope(scope):
        for name in ("k_proj", "v_proj", "q_proj"):
            b.t.linear(name, b.hidden, b.hidden, bias)
        b.t.linear(out, b.hidden, b.hidden, output_bias)
    return Attention(heads, heads, dim, dim, qkv_bias=bias)


def four_times(b: Block, field: str) -> int:
    """The FFN's width: a field that may be null, else four times the hidden size."""
    width = b.f.optional_count(field)
    return 4 * b.hidden if width is None else width


def wide(
    b: Block,
    kind: str,
    *,
    names: tuple[str, str],
    field: str = "n_inner",
    bias: bool = True,
    scope: str = "mlp.",
    fixed: bool = False,
) -> DenseFFN:
    width = 4 * b.hidden if fixed else four_times(b, field)
    return plain(b, width=width, bias=bias, names=names, scope=scope)


def gpt2_ffn(b: Block, kind: str) -> DenseFFN:
    width = four_times(b, "n_inner")
    for name, shape in (("c_fc", (b.hidden, width)), ("c_proj", (width, b.hidden))):
        b.t.add(f"mlp.{name}.weight", shape, Role.LINEAR)
        b.t.add(f"mlp.{name}.bias", shape[1:], Role.BIAS)
    return DenseFFN(width, False, b.f.text("activation_function") or "gelu")


def positions(
    name: str = "wpe", more: int = 0, field: str = "max_position_embeddings"
) -> Callable[[Block], None]:
    """A learned table of positions."""

    def add(b: Block) -> None:
        b.t.embedding(name, b.f.count(field) + more, b.hidden)

    return add


def bigcode_attention(b: Block, kind: str) -> Attention:
    kv = 1 if b.f.flag("multi_query", True) else None
    return fused(b, kind, qkv="attn.c_attn", out="attn.c_proj", kv_heads=kv)


def gpt_neo_kinds(f: Fields, layers: int) -> Sequence[str]:
    """GPT-Neo's local layers mask; its cache keeps every token all the same."""
    return [FULL] * layers


def opt_attention(b: Block, kind: str) -> Attention:
    bias = b.f.flag("enable_bias", True)
    return separate(b, kind, scope="self_attn.", bias=bias, output_bias=bias)


def opt_ffn(b: Block, kind: str) -> DenseFFN:
    if b.f.flag("layer_norm_elementwise_affine", True):
        b.t.norm("self_attn_layer_norm", b.hidden, True)
        b.t.norm("final_layer_norm", b.hidden, True)
    return plain(b, width="ffn_dim", bias="enable_bias", scope="")


def opt_outside(b: Block) -> None:
    """Positions, the projections of OPT-350m's narrow embedding, the last norm."""
    f, t = b.f, b.t
    narrow = f.optional_count("word_embed_proj_dim") or b.hidden
    t.embedding("embed_positions", f.count("max_position_embeddings") + 2, b.hidden)
    if narrow != b.hidden:
        t.linear("project_out", b.hidden, narrow)
        t.linear("project_in", narrow, b.hidden)
    last = f.flag("do_layer_norm_before", True) and not f.flag("_remove_final_layer_norm")
    if last and f.flag("layer_norm_elementwise_affine", True):
        t.norm("final_layer_norm", b.hidden, bias=True)


def falcon_attention(b: Block, kind: str) -> Attention:
    """Falcon: `multi_query` means one KV head, whatever `num_kv_heads` says.

    The new architecture (40B, 180B, 11B) has groups, which transformers repeats to all heads
    before it caches them.
    """
    f = b.f
    heads, dim = head_width(f, b.hidden)
    kv = f.count("num_kv_heads", heads)
    new = f.flag("new_decoder_architecture")
    if not new:
        kv = 1 if f.flag("multi_query") else heads
    bias = f.flag("bias")
    with b.t.scope("self_attention."):
        b.t.linear("query_key_value", b.hidden, (heads + 2 * kv) * dim, bias)
        b.t.linear("dense", b.hidden, b.hidden, bias)
    expanded = heads if new and kv != heads else None
    return Attention(
        heads, kv, dim, dim, qkv_bias=bias, rope=not f.flag("alibi"), expanded_heads=expanded
    )


def falcon_ffn(b: Block, kind: str) -> DenseFFN:
    """The MLP, and the norms of its block, which depend on whether attention runs beside it."""
    f = b.f
    norms = ["input_layernorm"]
    two = f.optional_count("num_ln_in_parallel_attn")
    if two is None and f.flag("new_decoder_architecture"):
        two = 2
    if not f.flag("parallel_attn"):
        norms.append("post_attention_layernorm")
    elif two == 2:
        norms = ["ln_attn", "ln_mlp"]
    for name in norms:
        b.t.norm(name, b.hidden, bias=True)
    names = ("dense_h_to_4h", "dense_4h_to_h")
    width = four_times(b, "ffn_hidden_size")
    return plain(b, width=width, bias="bias", names=names)


def neox_ffn(b: Block, kind: str) -> DenseFFN:
    return plain(b, names=("dense_h_to_4h", "dense_4h_to_h"))


LAYER_NORM: dict[str, Any] = {"norm": "layer", "norm_bias": True}
GPT2 = Style(
    attention=partial(fused, qkv="attn.c_attn", out="attn.c_proj", transposed=True),
    ffn=gpt2_ffn,
    norms=("ln_1", "ln_2"),
    embed="wte",
    final_norm="ln_f",
    layers="h",
    prefix="transformer.",
    extra=positions(),
    **LAYER_NORM,
)
STYLES: dict[str, Style] = {
    "gpt2": GPT2,
    "gpt-sw3": GPT2,
    "gpt_bigcode": GPT2.but(
        attention=bigcode_attention, ffn=partial(wide, names=("c_fc", "c_proj"))
    ),
    "gpt_neo": GPT2.but(
        attention=partial(separate, scope="attn.attention.", output_bias=True),
        ffn=partial(wide, names=("c_fc", "c_proj"), field="intermediate_size"),
        kinds=gpt_neo_kinds,
    ),
    "gptj": GPT2.but(
        attention=partial(separate, scope="attn."),
        ffn=partial(wide, names=("fc_in", "fc_out")),
        norms=("ln_1",),
        extra=None,
        head_bias=True,
        parallel=True,
    ),
    "codegen": GPT2.but(
        attention=partial(fused, qkv="attn.qkv_proj", out="attn.out_proj", bias=False),
        ffn=partial(wide, names=("fc_in", "fc_out")),
        norms=("ln_1",),
        extra=None,
        head_bias=True,
        parallel=True,
    ),
    "gpt_neox": Style(
        attention=partial(
            fused,
            qkv="attention.query_key_value",
            out="attention.dense",
            bias="attention_bias",
        ),
        ffn=neox_ffn,
        embed="embed_in",
        final_norm="final_layer_norm",
        prefix="gpt_neox.",
        parallel="use_parallel_residual",
        head="lm_head",
        **LAYER_NORM,
    ),
    "bloom": GPT2.but(
        attention=partial(fused, qkv="self_attention.query_key_value", out="self_attention.dense"),
        ffn=partial(wide, names=("dense_h_to_4h", "dense_4h_to_h"), fixed=True),
        norms=("input_layernorm", "post_attention_layernorm"),
        embed="word_embeddings",
        extra=lambda b: b.t.norm("word_embeddings_layernorm", b.hidden, bias=True),
    ),
    "mpt": GPT2.but(
        attention=partial(fused, qkv="attn.Wqkv", out="attn.out_proj", bias=False),
        ffn=partial(wide, names=("up_proj", "down_proj"), bias=False, scope="ffn.", fixed=True),
        norms=("norm_1", "norm_2"),
        norm_bias=False,
        final_norm="norm_f",
        layers="blocks",
        extra=None,
    ),
    "opt": Style(
        attention=opt_attention,
        ffn=opt_ffn,
        norms=(),
        final_norm=None,
        prefix="model.decoder.",
        extra=opt_outside,
        embed_width="word_embed_proj_dim",
        **LAYER_NORM,
    ),
    "falcon": GPT2.but(
        attention=falcon_attention,
        ffn=falcon_ffn,
        norms=(),
        embed="word_embeddings",
        extra=None,
        parallel=True,
    ),
}

__all__ = ["SLIDING", "STYLES", "activation"]
