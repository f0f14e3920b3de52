"""MiniMax: the first release's lightning attention, M2, and M3's sparse attention."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..config_fields import Fields
from ..spec import FFN, Attention, Indexer, Mixer, RecurrentState
from .blocks.attention import gqa, heads
from .blocks.ffn import gated, moe
from .blocks.layer_types import FULL, LINEAR
from .decoder import Block, Style, layer_types
from .llama import MISTRAL
from .moe import all_moe


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


SPARSE = "minimax_m3_sparse"


def _sparse_size(f: Fields, name: str, older: str) -> int:
    section = f.mapping("sparse_attention_config") or {}
    inner = Fields(section, path=f"{f.path}sparse_attention_config.", notes=f.notes)
    return inner.count(older) if older in section else f.count(name)


def m3_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    section = f.mapping("sparse_attention_config") or {}
    if given is not None or "sparse_attention_freq" not in section:
        return given or [FULL] * layers
    inner = Fields(section, path=f"{f.path}sparse_attention_config.", notes=f.notes)
    sparse = inner.counts("sparse_attention_freq", layers) or (0,) * layers
    return [SPARSE if each else FULL for each in sparse]


def m3_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = f.texts("mlp_layer_types", layers)
    if given is not None:
        return given
    sparse = f.counts("moe_layer_freq", layers)
    return ["sparse"] * layers if sparse is None else ["sparse" if x else "dense" for x in sparse]


def m3_attention(b: Block, kind: str) -> Attention:
    """Sparse layers keep one small key more for each token, by which blocks are chosen."""
    if kind != SPARSE:
        return gqa(b, kind, qk_norm="head")
    mixer = gqa(b, FULL, qk_norm="head")
    heads = _sparse_size(b.f, "index_n_heads", "sparse_num_index_heads")
    dim = _sparse_size(b.f, "index_head_dim", "sparse_index_dim")
    with b.t.scope("self_attn.indexer."):
        b.t.linear("q_proj", b.hidden, heads * dim)
        b.t.linear("k_proj", b.hidden, dim)
        b.t.norm("q_norm", dim)
        b.t.norm("k_norm", dim)
    blocks = _sparse_size(b.f, "index_topk_blocks", "sparse_topk_blocks")
    size = _sparse_size(b.f, "index_block_size", "sparse_block_size")
    return replace(mixer, indexer=Indexer(heads, dim, blocks * size))


def m3_ffn(b: Block, kind: str) -> FFN:
    f, t = b.f, b.t
    if kind == "dense":
        width = f.count("dense_intermediate_size")
        ffn: FFN = gated(b, width=width, fused="gate_up_proj")
        return ffn
    sparse = moe(b, experts_field="num_local_experts", width="intermediate_size")
    shared = f.count("shared_intermediate_size")
    with t.scope("mlp."):
        gated(b, width=shared, fused="gate_up_proj", scope="shared_experts.")
    return replace(sparse, shared_width=shared)


def minimax_m2_attention(b: Block, kind: str) -> Attention:
    return gqa(b, kind, qk_norm="width" if b.f.flag("use_qk_norm", True) else "")


LISTED_EXPERTS = partial(moe, experts_field="num_local_experts", width="intermediate_size")
STYLES: dict[str, Style] = {
    "minimax": MISTRAL.but(
        attention=minimax_mixer, ffn=LISTED_EXPERTS, ffn_kinds=all_moe, kinds=minimax_kinds
    ),
    "minimax_m2": Style(attention=minimax_m2_attention, ffn=LISTED_EXPERTS, ffn_kinds=all_moe),
    "minimax_m3_vl_text": Style(
        attention=m3_attention, ffn=m3_ffn, kinds=m3_kinds, ffn_kinds=m3_ffn_kinds
    ),
}
ALIASES = {
    "minimax_m3": "minimax_m3_vl_text",
    "minimax_text_01": "minimax",
    "minimax_m1": "minimax",
}
