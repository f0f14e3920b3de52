"""Mixtures of experts whose code comes with their checkpoint: Hunyuan-Large, Grok 2, DeepSeek-OCR,
SmallThinker.

Read by hand from that code or its ports; totals are held to those that are published.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ...config_fields import Fields
from ...spec import FFN, Attention, Bounds, MoEFFN, Part, Role
from ...tensor_list import Tensors
from ..blocks.attention import gqa, heads
from ..blocks.ffn import activation, dense_or_moe, first_dense, gated, moe
from ..blocks.layer_types import FULL, SLIDING
from ..blocks.moe import per_layer, routed
from ..config_defaults import fields_of
from ..decoder import Block, Decoder, Style, text_decoder
from ..deepseek import mla
from ..moe import all_moe
from ..towers.ocr import deepseek_ocr_towers
from ..unknown.encoders import tower_bounds
from ..unknown.not_planned import refuse


def hunyuan(f: Fields, t: Tensors) -> Decoder:
    """Tencent's first Hunyuan: of `cla_share_factor` layers, one computes and caches keys."""
    return text_decoder(f, t, HUNYUAN)


def hunyuan_kinds(f: Fields, layers: int) -> Sequence[str]:
    """A layer that shares names the layer whose cache it reads: `full_attention>4`."""
    every = f.count("cla_share_factor", 2) if f.flag("use_cla") else 1
    return [FULL if i % every == 0 else f"{FULL}>{i - i % every}" for i in range(layers)]


def hunyuan_attention(b: Block, kind: str) -> Attention:
    """Llama's; a layer that reads another's cache has no keys and values of its own."""
    f, t = b.f, b.t
    _, _, source = kind.partition(">")
    query, kv, dim = heads(f, b.hidden)
    bias = f.flag("attention_bias")
    normed = f.flag("use_qk_norm")
    with t.scope("self_attn."):
        t.linear("q_proj", b.hidden, query * dim, bias)
        if not source:
            t.linear("k_proj", b.hidden, kv * dim, bias)
            t.linear("v_proj", b.hidden, kv * dim, bias)
        t.linear("o_proj", query * dim, b.hidden, bias)
        if normed:
            t.norm("query_layernorm", dim)
            if not source:
                t.norm("key_layernorm", dim)
    shared = int(source) if source else None
    return Attention(query, kv, dim, dim, shares_kv_with=shared, qk_norm=normed, qkv_bias=bias)


def hunyuan_ffn(b: Block, kind: str) -> FFN:
    """Every expert's three matrices on their own, and `num_shared_expert` beside them."""
    f, t = b.f, b.t
    count, width = f.count("num_experts", 1), f.count("intermediate_size")
    bias = f.flag("mlp_bias")
    if count == 1:
        return gated(b, bias=bias)
    each = f.count("moe_intermediate_size", width) if f.has("moe_intermediate_size") else width
    shared = per_layer(f, "num_shared_expert") * width if f.flag("use_mixed_mlp_moe") else 0
    with t.scope("mlp."):
        t.linear("gate.wg", b.hidden, count, role=Role.ROUTER)
        with t.scope("experts.*.", count):
            gated(b, width=each, bias=bias, scope="")
        if shared:
            gated(b, width=shared, bias=bias, scope="shared_mlp.")
    top = per_layer(f, "moe_topk") if f.has("moe_topk") else 1
    return MoEFFN(count, top, each, shared, True, activation(f))


def grok_kinds(f: Fields, layers: int) -> Sequence[str]:
    """Windows, where `sliding_window_size` is not -1, but in every `global_attn_every_n`-th."""
    size, every = f.count("sliding_window_size", -1, low=-1), f.count("global_attn_every_n", 1)
    return [FULL if size < 1 or (i + 1) % every == 0 else SLIDING for i in range(layers)]


def grok_attention(b: Block, kind: str) -> Attention:
    mixer = gqa(b, FULL, softcap="attn_logit_softcapping")
    if kind == FULL:
        return mixer
    return replace(mixer, window=b.f.count("sliding_window_size"))


def grok_ffn(b: Block, kind: str) -> MoEFFN:
    """Eight experts, and where `residual_moe` a dense FFN beside them."""
    f, t = b.f, b.t
    count, dense = f.count("num_local_experts"), f.count("intermediate_size")
    residual = f.flag("residual_moe")
    width = f.count("moe_intermediate_size", dense)
    with t.scope("block_sparse_moe."):
        t.linear("gate", b.hidden, count, role=Role.ROUTER)
        with t.scope("experts.*.", count):
            gated(b, width=width, names=("w1", "w3", "w2"), scope="")
    if residual:
        gated(b, width=dense)
    for name in ("post_attn_norm", "post_moe_norm"):
        t.norm(name, b.hidden)
    top = f.count("num_experts_per_tok")
    return MoEFFN(count, top, width, dense if residual else 0, True, "gelu")


def grok(f: Fields, t: Tensors) -> Decoder:
    return text_decoder(f, t, GROK)


def git(f: Fields, t: Tensors) -> Decoder:
    """Grok 2's file calls itself `git`; its class tells it from Microsoft's captioner."""
    named = f.texts("architectures") or ()
    if named and named[0].startswith("Grok"):
        return grok(f, t)
    return refuse(f, t, "its image tokens and captions share one small decoder")


def deepseek_vl2(f: Fields, t: Tensors) -> Decoder:
    """DeepSeek-VL 2 and DeepSeek-OCR: DeepSeek V2's experts, with latent attention or without."""
    raw = f.mapping("language_config")
    if raw is None:
        raise f.missing("language_config")
    text = fields_of(raw, "deepseek_v2", path="language_config.", notes=f.notes)
    text = Fields(raw, kind=text.kind, path=text.path, aliases=text.aliases, notes=f.notes)
    decoder = text_decoder(text, t, DEEPSEEK_VL2)
    if deepseek_ocr_towers(f, t):
        return decoder
    f.note(f"the vision tower of {f.kind} is not described: its text model is planned")
    return replace(decoder, bounds=(*decoder.bounds, _tower(f, t, decoder.hidden)))


def _tower(f: Fields, t: Tensors, hidden: int) -> Bounds:
    with t.scope(part=Part.VISION):
        return tower_bounds(f, t, hidden)


def deepseek_vl2_attention(b: Block, kind: str) -> object:
    latent = b.f.flag("use_mla", b.f.has("kv_lora_rank")) and b.f.has("kv_lora_rank")
    return mla(b) if latent else gqa(b, FULL, bias="attention_bias")


_SMALLTHINKER = {
    "num_experts": "moe_num_primary_experts",
    "num_experts_per_tok": "moe_num_active_primary_experts",
    "moe_intermediate_size": "moe_ffn_hidden_size",
    "sliding_window": "sliding_window_size",
}


def smallthinker(f: Fields, t: Tensors) -> Decoder:
    """SmallThinker: routed experts alone, by names of their own; every layer has them, whatever
    `moe_layer_layout` says (its class puts ones there)."""
    if f.count("moe_shared_primary_experts", 0, low=0):
        raise f.wrong("moe_shared_primary_experts", 1, "0, since no class has them")
    given = {"hidden_act": "relu", "tie_word_embeddings": True}
    own = Fields(
        f.raw, kind=f.kind, path=f.path, aliases=_SMALLTHINKER, defaults=given, notes=f.notes
    )
    return text_decoder(own, t, SMALLTHINKER)


def smallthinker_kinds(f: Fields, layers: int) -> Sequence[str]:
    slides = f.counts("sliding_window_layout", layers) or (0,) * layers
    return [SLIDING if one else FULL for one in slides]


def smallthinker_attention(b: Block, kind: str) -> Attention:
    return gqa(b, kind, qk_norm="head" if b.f.flag("use_qk_norm") else "")


HUNYUAN = Style(attention=hunyuan_attention, ffn=hunyuan_ffn, kinds=hunyuan_kinds)
GROK = Style(
    attention=grok_attention,
    ffn=grok_ffn,
    kinds=grok_kinds,
    ffn_kinds=all_moe,
    norms=("pre_attn_norm", "pre_moe_norm"),
    sandwich=True,
    softcap="final_logit_softcapping",
)
DEEPSEEK_VL2 = Style(
    attention=deepseek_vl2_attention,  # type: ignore[arg-type]
    ffn=dense_or_moe(gated, routed),
    ffn_kinds=first_dense,
    kinds=lambda f, n: [FULL] * n,
)
SMALLTHINKER = Style(
    attention=smallthinker_attention,
    ffn=partial(moe, router="primary_router", scope="block_sparse_moe."),
    ffn_kinds=all_moe,
    kinds=smallthinker_kinds,
)
READERS = {
    "smallthinker": smallthinker,
    "hunyuan": hunyuan,
    "grok": grok,
    "git": git,
    "deepseek_vl_v2": deepseek_vl2,
}
