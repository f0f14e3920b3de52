"""Multi-head latent attention (MLA): DeepSeek V2, V3, V3.2, Kimi K2, GLM 4.7 Flash and 5, MiniCPM3.

Queries and keys have a part without position (`qk_nope_head_dim`) and a rotary part
(`qk_rope_head_dim`). Keys and values are expanded from a latent of `kv_lora_rank` channels by
`kv_b_proj`; the cache holds the latent and one rotary key, nothing for each head.
"""

from collections.abc import Sequence
from functools import partial

from ..config_fields import Fields
from ..spec import Indexer, LatentAttention
from .blocks.ffn import dense_or_moe, first_dense, gated
from .blocks.moe import routed
from .decoder import Block, Style, layer_types
from .moe import all_moe, listed_or_first, mlp_listed


def mla(
    b: Block,
    kind: str = "full_attention",
    *,
    indexer: str = "",
    q_rank: bool = True,
    scope: str = "self_attn.",
) -> LatentAttention:
    """Add one MLA's tensors.

    `indexer`: "" none, "own" its own sparse indexer, "shared" it uses an earlier layer's.
    """
    f, t = b.f, b.t
    heads, rank = f.count("num_attention_heads"), f.count("kv_lora_rank")
    nope, rope = f.count("qk_nope_head_dim"), f.count("qk_rope_head_dim", low=0)
    value = f.count("v_head_dim", max(1, b.hidden // heads))
    query_rank = f.optional_count("q_lora_rank") if q_rank else None
    bias = f.flag("attention_bias")
    with t.scope(scope):
        if query_rank is None:
            t.linear("q_proj", b.hidden, heads * (nope + rope))
        else:
            t.linear("q_a_proj", b.hidden, query_rank, bias)
            t.norm("q_a_layernorm", query_rank)
            t.linear("q_b_proj", query_rank, heads * (nope + rope))
        t.linear("kv_a_proj_with_mqa", b.hidden, rank + rope, bias)
        t.norm("kv_a_layernorm", rank)
        t.linear("kv_b_proj", rank, heads * (nope + value))
        t.linear("o_proj", heads * value, b.hidden, bias)
        own_indexer = indexer_of(b, query_rank or b.hidden) if indexer == "own" else None
    return LatentAttention(heads, query_rank, rank, nope, rope, value, own_indexer)


def indexer_of(b: Block, query_rank: int) -> Indexer:
    """DeepSeek sparse attention's indexer: small queries score one cached key per token."""
    f, t = b.f, b.t
    heads, dim = f.count("index_n_heads"), f.count("index_head_dim")
    with t.scope("indexer."):
        t.linear("wq_b", query_rank, heads * dim)
        t.linear("wk", b.hidden, dim)
        t.norm("k_norm", dim, bias=True)
        t.linear("weights_proj", b.hidden, heads)
    return Indexer(heads, dim, f.count("index_topk"))


def glm_indexers(f: Fields, layers: int) -> Sequence[str]:
    """GLM-5: which layers have an indexer of their own and which use an earlier one's."""
    given = f.texts("indexer_types", layers)
    if given is None and isinstance(f.raw.get("index_topk_pattern"), list):
        given = f.texts("index_topk_pattern", layers)
    if given is not None:
        return ["own" if kind == "full" else "shared" for kind in given]
    pattern = f.text("index_topk_pattern")
    if pattern is not None:
        if len(pattern) != layers or set(pattern) - {"F", "S"}:
            raise f.wrong("index_topk_pattern", pattern, "one letter F or S for each layer")
        return ["own" if letter == "F" else "shared" for letter in pattern]
    every = f.count("index_topk_freq", 1, low=0) or 1
    offset = f.count("index_skip_topk_offset", 2, low=0)
    return ["own" if max(i - offset + 1, 0) % every == 0 else "shared" for i in range(layers)]


def only_full(f: Fields, layers: int) -> Sequence[str]:
    """MLA has no windows: whatever the config calls its layers, they see everything."""
    return ["full_attention"] * layers


def dsa_attention(b: Block, kind: str) -> LatentAttention:
    return mla(b, indexer=kind)


def dsa_everywhere(f: Fields, layers: int) -> Sequence[str]:
    return ["own"] * layers


SPARSE = dense_or_moe(gated, routed)
DEEPSEEK = Style(attention=mla, ffn=SPARSE, ffn_kinds=first_dense, kinds=only_full)
STYLES: dict[str, Style] = {
    "deepseek_v2": DEEPSEEK.but(
        ffn=dense_or_moe(partial(gated, bias="mlp_bias"), partial(routed, bias="mlp_bias"))
    ),
    "deepseek_v3": DEEPSEEK,
    "kimi_k2": DEEPSEEK,
    "deepseek_v32": DEEPSEEK.but(
        attention=dsa_attention, kinds=dsa_everywhere, ffn_kinds=listed_or_first(0)
    ),
    "glm_moe_dsa": DEEPSEEK.but(
        attention=dsa_attention, kinds=glm_indexers, ffn_kinds=listed_or_first(0)
    ),
    "glm4_moe_lite": DEEPSEEK.but(ffn_kinds=mlp_listed(1)),
    "minicpm3": Style(attention=mla, ffn=partial(gated, bias="mlp_bias"), kinds=only_full),
    "youtu": Style(attention=mla, ffn=partial(gated, bias="mlp_bias"), kinds=only_full),
    "mistral4": DEEPSEEK,
}

__all__ = ["STYLES", "all_moe", "layer_types", "mla"]
