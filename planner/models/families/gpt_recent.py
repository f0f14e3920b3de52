"""Further old decoders: BioGPT, XGLM, CTRL, GPT-NeoX Japanese, Persimmon."""

from collections.abc import Sequence
from functools import partial

from ..config_fields import Fields
from ..spec import Attention, DenseFFN, Role
from .blocks.ffn import plain
from .decoder import Block, Style
from .gpt import LAYER_NORM, fused, positions, separate


def persimmon_attention(b: Block, kind: str) -> Attention:
    mixer = fused(b, kind, qkv="self_attn.query_key_value", out="self_attn.dense")
    if b.f.flag("qk_layernorm"):
        b.t.norm("self_attn.q_layernorm", mixer.head_dim, True)
        b.t.norm("self_attn.k_layernorm", mixer.head_dim, True)
    return mixer


def ctrl_attention(b: Block, kind: str) -> Attention:
    heads = b.f.count("num_attention_heads")
    for name in ("Wq", "Wk", "Wv", "dense"):
        b.t.linear(f"multi_head_attention.{name}", b.hidden, b.hidden, True)
    dim = b.hidden // heads
    return Attention(heads, heads, dim, dim, qkv_bias=True, rope=False)


def japanese_kinds(f: Fields, layers: int) -> Sequence[str]:
    """The last layer's output alone has a bias."""
    return ["plain"] * (layers - 1) + ["biased"]


def japanese_ffn(b: Block, kind: str) -> DenseFFN:
    if kind == "biased":
        b.t.add("attention.dense_bias", (b.hidden,), Role.BIAS)
    width = b.hidden * b.f.count("intermediate_multiple_size", 4, high=64)
    return plain(b, width=width, bias=False, names=("dense_h_to_4h", "dense_4h_to_h"))


BIOGPT = Style(
    attention=partial(separate, scope="self_attn.", bias=True, output_bias=True),
    ffn=partial(plain, scope=""),
    norms=("self_attn_layer_norm", "final_layer_norm"),
    final_norm="layer_norm",
    prefix="biogpt.",
    extra=positions("embed_positions", more=2),
    **LAYER_NORM,
)
STYLES: dict[str, Style] = {
    "biogpt": BIOGPT,
    "xglm": BIOGPT.but(ffn=partial(plain, width="ffn_dim", scope=""), prefix="model.", extra=None),
    "ctrl": Style(
        attention=ctrl_attention,
        ffn=partial(plain, width="dff", names=("*", "*"), scope="ffn."),
        norms=("layernorm1", "layernorm2"),
        embed="w",
        final_norm="layernorm",
        layers="h",
        prefix="transformer.",
        head_bias=True,
        **LAYER_NORM,
    ),
    "gpt_neox_japanese": Style(
        attention=partial(
            fused, qkv="attention.query_key_value", out="attention.dense", bias=False
        ),
        ffn=japanese_ffn,
        ffn_kinds=japanese_kinds,
        embed="embed_in",
        final_norm="final_layer_norm",
        prefix="gpt_neox_japanese.",
        **LAYER_NORM,
    ),
    "persimmon": Style(
        attention=persimmon_attention,
        ffn=partial(plain, names=("dense_h_to_4h", "dense_4h_to_h")),
        final_norm="final_layernorm",
        **LAYER_NORM,
    ),
}
