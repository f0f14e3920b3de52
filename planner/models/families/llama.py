"""Families that are Llama with a bias, a norm, a window or an activation of their own."""

from functools import partial
from typing import Any

from ..spec import Attention, DenseFFN, Role
from .blocks.attention import gqa
from .blocks.ffn import gated, plain
from .blocks.layer_types import (
    all_or_none,
    every_nth_full,
    every_nth_slides_not,
    first_of_four_full,
    qwen_windows,
    smollm_windows,
)
from .decoder import Block, Style

LLAMA = Style(
    attention=partial(gqa, bias="attention_bias"),
    ffn=partial(gated, bias="mlp_bias"),
)
MISTRAL = Style(attention=gqa, ffn=gated)
QWEN2 = Style(attention=partial(gqa, bias=True, output_bias=False), ffn=gated, kinds=qwen_windows)
QWEN3 = QWEN2.but(attention=partial(gqa, bias="attention_bias", qk_norm="head"))
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
SANDWICH = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
# Ouro's names for the same four places.
SANDWICH_OURO = (
    "input_layernorm",
    "input_layernorm_2",
    "post_attention_layernorm",
    "post_attention_layernorm_2",
)
GLM = Style(
    attention=partial(gqa, bias="attention_bias", output_bias=False),
    ffn=partial(gated, fused="gate_up_proj"),
)
GLM4 = GLM.but(
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "post_self_attn_layernorm",
        "post_mlp_layernorm",
    ),
    sandwich=True,
)
GEMMA = Style(attention=partial(gqa, bias="attention_bias"), ffn=gated, norm="rms_offset")
GEMMA2 = GEMMA.but(
    attention=partial(gqa, bias="attention_bias", softcap="attn_logit_softcapping"),
    norms=SANDWICH,
    sandwich=True,
    kinds=every_nth_full(2),
    softcap="final_logit_softcapping",
)
COHERE = Style(
    attention=lambda b, kind: cohere_attention(b, kind),
    ffn=gated,
    norms=("input_layernorm",),
    norm="layer",
    parallel=True,
)
OLMO2 = Style(
    attention=partial(gqa, bias="attention_bias", qk_norm="width"), ffn=gated, norms=POST_NORMS
)
HUNYUAN = Style(
    attention=partial(
        gqa,
        bias="attention_bias",
        qk_norm="head",
        norm_names=("query_layernorm", "key_layernorm"),
    ),
    ffn=gated,
)
LAYER_NORM: dict[str, Any] = {"norm": "layer", "norm_bias": True}


def cohere_attention(b: Block, kind: str) -> Attention:
    """Llama's, and layer norms over each head of q and k where `use_qk_norm`."""
    mixer = gqa(b, kind, bias="attention_bias")
    if b.f.flag("use_qk_norm"):
        b.t.add("self_attn.q_norm.weight", (mixer.query_heads, mixer.head_dim), Role.NORM)
        b.t.add("self_attn.k_norm.weight", (mixer.kv_heads, mixer.head_dim), Role.NORM)
    return mixer


def cohere2_attention(b: Block, kind: str) -> Attention:
    return gqa(b, kind, bias="attention_bias", head_dim=False)


def apertus_ffn(b: Block, kind: str) -> DenseFFN:
    ffn = plain(b, bias=False, names=("up_proj", "down_proj"))
    if ffn.activation == "xielu":
        b.t.add("mlp.act_fn.alpha_p", (1,), Role.OTHER)
        b.t.add("mlp.act_fn.alpha_n", (1,), Role.OTHER)
    return ffn


def bitnet_attention(b: Block, kind: str) -> Attention:
    b.t.norm("self_attn.attn_sub_norm", b.hidden)
    return gqa(b, kind, bias="attention_bias")


def bitnet_ffn(b: Block, kind: str) -> DenseFFN:
    ffn = gated(b)
    b.t.norm("mlp.ffn_sub_norm", ffn.width)
    return ffn


def phi_attention(b: Block, kind: str) -> Attention:
    mixer = gqa(b, kind, bias=True, names=("q_proj", "k_proj", "v_proj", "dense"))
    if b.f.flag("qk_layernorm"):
        dim = b.hidden // mixer.query_heads
        b.t.norm("self_attn.q_layernorm", dim, bias=True)
        b.t.norm("self_attn.k_layernorm", dim, bias=True)
    return mixer


def diff_attention(b: Block, kind: str) -> Attention:
    """DiffLlama: the difference of two softmaxes, weighted by four learned vectors."""
    mixer = gqa(b, kind, bias="attention_bias")
    for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
        b.t.add(f"self_attn.{name}", (mixer.head_dim,), Role.OTHER)
    return mixer


STYLES: dict[str, Style] = {
    "llama": LLAMA,
    "internlm3": LLAMA.but(
        attention=partial(gqa, bias="qkv_bias", output_bias="bias"), ffn=partial(gated, bias="bias")
    ),
    "iquestcoder": LLAMA,
    "arcee": LLAMA.but(ffn=partial(plain, bias="mlp_bias", names=("up_proj", "down_proj"))),
    "apertus": Style(
        attention=partial(gqa, bias="attention_bias", qk_norm="head"),
        ffn=apertus_ffn,
        norms=("attention_layernorm", "feedforward_layernorm"),
    ),
    "bitnet": Style(attention=bitnet_attention, ffn=bitnet_ffn),
    "cohere": COHERE,
    "cohere2": COHERE.but(attention=cohere2_attention, kinds=every_nth_full(4)),
    "cwm": LLAMA.but(attention=gqa, kinds=first_of_four_full),
    "diffllama": Style(attention=diff_attention, ffn=gated),
    "ernie4_5": Style(attention=partial(gqa, bias="use_bias"), ffn=partial(gated, bias="use_bias")),
    "exaone4": Style(
        attention=partial(gqa, qk_norm="head"),
        ffn=gated,
        norms=POST_NORMS,
        kinds=every_nth_slides_not,
    ),
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2.but(
        attention=partial(
            gqa, bias="attention_bias", qk_norm="head", softcap="attn_logit_softcapping"
        ),
        kinds=every_nth_full(6),
    ),
    "vaultgemma": GEMMA2.but(norms=("input_layernorm", "pre_feedforward_layernorm")),
    "glm": GLM,
    "glm4": GLM4,
    "glm_ocr_text": GLM4.but(attention=gqa),
    "glm4v_text": GLM4.but(attention=partial(gqa, bias=True, output_bias=False)),
    "granite": LLAMA,
    "granite_swa": LLAMA.but(
        attention=partial(gqa, bias="attention_bias", sinks=True), kinds=first_of_four_full
    ),
    "helium": LLAMA.but(
        attention=partial(gqa, bias="attention_bias", output_bias=False, square_output=True)
    ),
    "hunyuan_v1_dense": HUNYUAN,
    "jais2": LLAMA.but(
        ffn=partial(plain, bias="mlp_bias", names=("up_proj", "down_proj")), **LAYER_NORM
    ),
    "ministral": MISTRAL.but(kinds=all_or_none),
    "ministral3": MISTRAL,
    "mistral": MISTRAL,
    "nanochat": Style(
        attention=partial(gqa, bias="attention_bias"),
        ffn=partial(plain, bias=False),
        norms=(),
        final_norm=None,
    ),
    "nemotron": LLAMA.but(
        ffn=partial(plain, bias="mlp_bias", names=("up_proj", "down_proj")), **LAYER_NORM
    ),
    "olmo": Style(
        attention=partial(gqa, bias="attention_bias"),
        ffn=gated,
        norms=(),
        final_norm=None,
        norm="layer",
    ),
    "olmo2": OLMO2,
    "olmo3": OLMO2.but(kinds=every_nth_full(4)),
    "phi": Style(
        attention=phi_attention,
        ffn=plain,
        norms=("input_layernorm",),
        final_norm="final_layernorm",
        head_bias=True,
        parallel=True,
        **LAYER_NORM,
    ),
    "phi3": Style(
        attention=partial(gqa, fused="qkv_proj"), ffn=partial(gated, fused="gate_up_proj")
    ),
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "seed_oss": LLAMA.but(
        attention=partial(gqa, bias="attention_bias", output_bias="attention_out_bias")
    ),
    "smollm3": LLAMA.but(kinds=smollm_windows),
    "starcoder2": Style(
        attention=partial(gqa, bias="use_bias"),
        ffn=partial(plain, bias="use_bias", names=("c_fc", "c_proj")),
        **LAYER_NORM,
    ),
}
ALIASES = {
    "hunyuan_vl_text": "hunyuan_v1_dense",
    "paddleocr_vl_text": "ernie4_5",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_5_omni_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
"""Text sections that are a decoder of this file under a name of their own."""
