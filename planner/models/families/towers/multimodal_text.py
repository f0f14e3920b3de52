"""Decoders of image models that are no text model's own: Muse, Mistral Large 4, ERNIE 4.5 VL.

Muse gates its attention and, in Spark, works its experts in a narrower stream. Mistral Large 4 is
latent attention whose every fourth layer has no rotary part. ERNIE keeps experts for text apart
from those for images.
"""

from collections.abc import Sequence
from functools import partial

from ....errors import BadConfig
from ...config_fields import Fields
from ...spec import FFN, Attention, LatentAttention, MoEFFN, Role
from ..blocks.attention import gqa
from ..blocks.ffn import activation, experts, gated
from ..blocks.layer_types import FULL, SLIDING
from ..decoder import Block, Style, layer_types
from ..deepseek import SPARSE, glm_indexers, mla
from ..llama import COHERE, LLAMA, SANDWICH
from ..moe import listed_or_first, mlp_listed


def muse_kinds(f: Fields, layers: int) -> Sequence[str]:
    """Every fourth layer attends fully, counted back from the last."""
    return layer_types(f, layers) or [
        SLIDING if (layers - 1 - i) % 4 else FULL for i in range(layers)
    ]


def muse_attention(b: Block, kind: str) -> Attention:
    return gqa(b, kind, bias="attention_bias", gate="gate_proj")


def spark_ffn(b: Block, kind: str) -> FFN:
    """Dense, or experts in a narrower space than the residual stream."""
    f, t = b.f, b.t
    for name in ("post_attention_residual_gate", "post_feedforward_residual_gate"):
        t.add(f"{name}.gate", (b.hidden,), Role.OTHER)
    if kind == "dense":
        return gated(b)
    count, width = f.count("num_local_experts"), f.count("moe_intermediate_size")
    narrow = f.count("moe_hidden_size")
    with t.scope("mlp."):
        t.linear("gate", b.hidden, count, role=Role.ROUTER)
        t.linear("pre_expert_proj", b.hidden, narrow)
        t.norm("pre_expert_norm", narrow)
        experts(Block(f, t, narrow), count, width)
        t.norm("experts.post_expert_norm", narrow)
        t.linear("post_expert_proj", narrow, b.hidden)
    return MoEFFN(count, f.count("num_experts_per_tok"), width, activation=activation(f))


def large4_kinds(f: Fields, layers: int) -> Sequence[str]:
    """`own:1` has an indexer of its own and a rotary part, `shared:0` neither."""
    turns = f.counts("no_rope_layers", layers)
    if turns is None:
        every = f.count("no_rope_layer_interval", 4)
        turns = tuple(int((i + 1) % every != 0) for i in range(layers))
    sources = f.counts("kv_source_layers", layers) or tuple(range(layers))
    if sources != tuple(range(layers)):
        raise BadConfig(
            f"{f.kind} with kv_source_layers that share caches is not known to this version",
            "plan a checkpoint whose layers all have caches of their own",
        )
    modes = f.texts("indexer_types", layers)
    own = ["own" if m == "full" else "shared" for m in modes] if modes else glm_indexers(f, layers)
    return [f"{mode}:{turn}" for mode, turn in zip(own, turns, strict=True)]


def large4_attention(b: Block, kind: str) -> LatentAttention:
    """Latent attention with learned softmax scales, without RoPE where the layer's kind says so."""
    f, t = b.f, b.t
    mode, _, turns = kind.partition(":")
    own = f
    if turns == "0":
        whole = f.count("qk_nope_head_dim") + f.count("qk_rope_head_dim", low=0)
        own = f.changed(qk_nope_head_dim=whole, qk_rope_head_dim=0)
    mixer = mla(Block(own, t, b.hidden), indexer=mode, q_rank=f.has("q_lora_rank"))
    scales = [("", mixer.query_heads)]
    if mixer.indexer is not None:
        scales.append(("indexer.", mixer.indexer.heads))
        t.norm("self_attn.indexer.q_input_norm", b.hidden, True)
    for scope, count in scales:
        t.add(f"self_attn.{scope}softmax_scaling.scale", (count,), Role.OTHER)
        t.add(f"self_attn.{scope}softmax_scaling.bias", (count,), Role.OTHER)
    return mixer


def ernie_vl_ffn(b: Block, kind: str) -> FFN:
    """Text tokens go to one set of experts, image tokens to another of another width."""
    f, t = b.f, b.t
    bias = f.flag("use_bias")
    if kind == "dense":
        return gated(b, bias=bias)
    widths = f.counts("moe_intermediate_size", 2, low=1) or (1536, 512)
    given = f.raw.get("moe_num_experts")
    counts = (
        (f.counts("moe_num_experts", 2, low=1) or (1, 1))
        if isinstance(given, list)
        else (f.count("moe_num_experts"),) * 2
    )
    shared = f.count("moe_num_shared_experts", 0, low=0) * widths[0]
    with t.scope("mlp."):
        for name, count, width in zip(("text_moe.", "vision_moe."), counts, widths, strict=True):
            with t.scope(name):
                t.linear("gate", b.hidden, count, role=Role.ROUTER)
                t.add("gate.moe_statics.e_score_correction_bias", (1, count), Role.OTHER)
                experts(b, count, width)
        if shared:
            gated(b, width=shared, bias=bias, scope="shared_experts.")
    top = f.count("moe_k")
    return MoEFFN(counts[0], top, widths[0], shared, True, activation(f))


def unlimited_kinds(f: Fields, layers: int) -> Sequence[str]:
    """The whole prompt stays visible; a window bounds only what was generated, and is planned
    as if it kept everything."""
    window = f.optional_count("sliding_window", high=2**31)
    if window is not None:
        f.note(f"{f.kind} drops generated tokens older than {window}: planned as if it kept them")
    return [FULL] * layers


OCR_TEXT = LLAMA.but(ffn=SPARSE, ffn_kinds=listed_or_first(1), kinds=unlimited_kinds)
MUSE = Style(
    attention=muse_attention,
    ffn=gated,
    kinds=muse_kinds,
    norms=SANDWICH,
    sandwich=True,
    softcap="final_logit_softcapping",
)
STYLES: dict[str, Style] = {
    "muse_glimmer_text": MUSE,
    "muse_spark_text": MUSE.but(
        ffn=spark_ffn,
        ffn_kinds=mlp_listed(0),
        norms=("input_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
    "mistral_large4_text": Style(
        attention=large4_attention,
        ffn=SPARSE,
        kinds=large4_kinds,
        ffn_kinds=listed_or_first(1),
        softcap="final_logit_softcapping",
    ),
    "ernie4_5_vl_moe_text": Style(
        attention=partial(gqa, bias="use_bias"), ffn=ernie_vl_ffn, ffn_kinds=mlp_listed(1)
    ),
    "unlimited_ocr_text": OCR_TEXT,
    "deepseek_ocr2_text": OCR_TEXT,
    "cohere_compass_text": COHERE.but(kinds=lambda f, n: layer_types(f, n) or [FULL] * n),
}
