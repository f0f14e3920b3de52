"""Families whose code comes with their checkpoint: transformers alone does not know them.

Read by hand from that code; tests/planner/models/test_remote.py holds the totals to those stated
in public, or to the code counted by hand.
"""

from functools import partial

from ...config_fields import Fields
from ...spec import Attention, DenseFFN, MoEFFN, Role
from ...tensor_list import Tensors
from ..blocks.attention import gqa
from ..blocks.ffn import activation, dense_or_moe, first_dense, gated, plain
from ..decoder import Block, Decoder, Style, text_decoder
from ..gpt import GPT2, head_width
from ..llama import LAYER_NORM, LLAMA, MISTRAL


def phi_msft_attention(b: Block, kind: str) -> Attention:
    """The first Phi-1.5 and Phi-2 files."""
    heads, dim = head_width(b.f, b.hidden)
    kv = b.f.count("n_head_kv", heads)
    b.t.linear("mixer.Wqkv", b.hidden, (heads + 2 * kv) * dim, True)
    b.t.linear("mixer.out_proj", b.hidden, b.hidden, True)
    return Attention(heads, kv, dim, dim, qkv_bias=True, rotary_dim=b.f.count("rotary_dim", dim))


def phi_msft_ffn(b: Block, kind: str) -> DenseFFN:
    return plain(b, width=b.f.count("n_inner", 4 * b.hidden))


def phi_msft(f: Fields, t: Tensors) -> Decoder:
    """Its final norm lives in the head."""
    named = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    }
    own = Fields(f.raw, kind=f.kind, aliases=named, notes=f.notes)
    decoder = text_decoder(own, t, PHI_MSFT, tied=True)
    t.norm("lm_head.ln", decoder.hidden, True)
    t.head("lm_head.linear", decoder.hidden, decoder.vocab, True)
    return decoder


def exaone(f: Fields, t: Tensors) -> Decoder:
    """EXAONE 3 and 3.5: Llama's layers under names of their own."""
    named = {"num_hidden_layers": "num_layers", "hidden_act": "activation_function"}
    own = Fields(f.raw, kind=f.kind, aliases=named, notes=f.notes)
    return text_decoder(own, t, LLAMA)


PHI_MSFT = Style(
    attention=phi_msft_attention,
    ffn=phi_msft_ffn,
    norms=("ln",),
    embed="embd.wte",
    final_norm=None,
    layers="h",
    prefix="transformer.",
    parallel=True,
    **LAYER_NORM,
)


def qwen1_attention(b: Block, kind: str) -> Attention:
    """Qwen 1: heads of `kv_channels`, a bias on q, k and v alone where `no_bias`."""
    heads, dim = b.f.count("num_attention_heads"), b.f.count("kv_channels")
    bias = not b.f.flag("no_bias", True)
    b.t.linear("attn.c_attn", b.hidden, 3 * heads * dim, True)
    b.t.linear("attn.c_proj", heads * dim, b.hidden, bias)
    return Attention(heads, heads, dim, dim, qkv_bias=True)


def qwen1_ffn(b: Block, kind: str) -> DenseFFN:
    """`intermediate_size` counts gate and up together."""
    width = b.f.count("intermediate_size", low=2) // 2
    bias = not b.f.flag("no_bias", True)
    return gated(b, width=width, bias=bias, names=("w1", "w2", "c_proj"))


def baichuan_attention(b: Block, kind: str) -> Attention:
    heads, dim = head_width(b.f, b.hidden)
    b.t.linear("self_attn.W_pack", b.hidden, 3 * b.hidden)
    b.t.linear("self_attn.o_proj", b.hidden, b.hidden)
    return Attention(heads, heads, dim, dim)


def internlm2_attention(b: Block, kind: str) -> Attention:
    heads, dim = head_width(b.f, b.hidden)
    kv, bias = b.f.count("num_key_value_heads", heads), b.f.flag("bias", True)
    b.t.linear("attention.wqkv", b.hidden, (heads + 2 * kv) * dim, bias)
    b.t.linear("attention.wo", b.hidden, b.hidden, bias)
    return Attention(heads, kv, dim, dim, qkv_bias=bias)


def separate_experts(b: Block, kind: str) -> MoEFFN:
    """DeepSeekMoE's first code: each expert's matrices on their own."""
    f, t = b.f, b.t
    count, width = f.count("n_routed_experts"), f.count("moe_intermediate_size")
    shared = width * f.count("n_shared_experts", 0, low=0)
    with t.scope("mlp."):
        t.linear("gate", b.hidden, count, role=Role.ROUTER)
        with t.scope("experts.*.", count):
            gated(b, width=width, scope="")
        if shared:
            gated(b, width=shared, scope="shared_experts.")
    top_k = f.count("num_experts_per_tok")
    return MoEFFN(count, top_k, width, shared, True, activation(f))


def chatglm(f: Fields, t: Tensors) -> Decoder:
    """ChatGLM 2 and 3, GLM-4-9B's first files."""
    named = {
        "num_hidden_layers": "num_layers",
        "vocab_size": "padded_vocab_size",
        "intermediate_size": "ffn_hidden_size",
        "head_dim": "kv_channels",
        "max_position_embeddings": "seq_length",
    }
    own = Fields(f.raw, kind=f.kind, aliases=named, notes=f.notes)
    return text_decoder(own, t, CHATGLM)


def chatglm_attention(b: Block, kind: str) -> Attention:
    f = b.f
    heads, dim = f.count("num_attention_heads"), f.count("head_dim")
    kv = f.count("multi_query_group_num") if f.flag("multi_query_attention") else heads
    bias = f.flag("add_bias_linear")
    qkv_bias = bias or f.flag("add_qkv_bias")
    with b.t.scope("self_attention."):
        b.t.linear("query_key_value", b.hidden, (heads + 2 * kv) * dim, qkv_bias)
        b.t.linear("dense", heads * dim, b.hidden, bias)
    return Attention(heads, kv, dim, dim, qkv_bias=qkv_bias, rotary_dim=max(1, dim // 2))


CHATGLM = Style(
    attention=chatglm_attention,
    ffn=partial(
        gated,
        bias="add_bias_linear",
        fused="dense_h_to_4h",
        names=("", "", "dense_4h_to_h"),
    ),
    embed="embedding.word_embeddings",
    final_norm="encoder.final_layernorm",
    layers="encoder.layers",
    prefix="transformer.",
    head="transformer.output_layer",
)


QWEN1 = GPT2.but(
    attention=qwen1_attention,
    ffn=qwen1_ffn,
    extra=None,
    norm="rms",
    norm_bias=False,
)
STYLES: dict[str, Style] = {
    "qwen": QWEN1,
    "baichuan": MISTRAL.but(attention=baichuan_attention),
    "internlm": MISTRAL.but(attention=partial(gqa, bias="bias")),
    "internlm2": Style(
        attention=internlm2_attention,
        ffn=partial(gated, names=("w1", "w3", "w2"), scope="feed_forward."),
        norms=("attention_norm", "ffn_norm"),
        embed="tok_embeddings",
        head="output",
    ),
    "minicpm": LLAMA,
    "orion": MISTRAL.but(attention=partial(gqa, bias="attention_bias"), **LAYER_NORM),
    "deepseek": LLAMA.but(
        attention=partial(gqa, bias="attention_bias"),
        ffn=dense_or_moe(gated, separate_experts),
        ffn_kinds=first_dense,
    ),
}
READERS = {"exaone": exaone, "phi-msft": phi_msft, "chatglm": chatglm}
