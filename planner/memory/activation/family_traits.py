"""The BlockTraits of each model family; a family that is not listed has those of Llama."""

from dataclasses import replace

from .block_traits import LLAMA, BlockTraits, Order

_PARALLEL = BlockTraits(order=Order.PARALLEL)
_POST_NORM = BlockTraits(order=Order.POST_NORM)
_FLOAT_ROUTING = BlockTraits(float_routing=True)
_SHARED_FIRST = BlockTraits(shared_first=True)
_GEMMA3 = BlockTraits(order=Order.SANDWICH, tables_by_reach=True)
_GEMMA3N = replace(
    _GEMMA3, streams=4, keeps_normed=True, keeps_attention=True, fused_gate=True
)  # the gate keeps its name while `up` is made, as if one matrix made both
_GEMMA4 = replace(_GEMMA3, float_routing=True, dense_beside=True)
_COHERE = replace(_PARALLEL, upcast_rotary=True, scaled_logits=True)
_ERNIE = BlockTraits(float_rotary=True, spread_tables=True)
_GLM4 = BlockTraits(order=Order.SANDWICH, fused_gate=True, spread_tables=True)
_GRANITE = BlockTraits(scaled_adds=True, scaled_logits=True)
_OLMO = replace(_POST_NORM, float_rotary=True)
_GPT = BlockTraits(
    fused_qkv=True, scaled_embeddings=True, position_embeddings=True, keeps_attention=True
)
_LLAMA4 = BlockTraits(native_softmax=True, keeps_attention=True, every_expert=True)

_FAMILIES: dict[str, BlockTraits] = {
    "bitnet": BlockTraits(normed_product=True),
    "bloom": BlockTraits(fused_qkv=True, eager_only=True, keeps_weights=True, named_scores=True),
    "cohere": _COHERE,
    "cohere2": _COHERE,
    "cohere2_moe": _COHERE,
    "codegen": BlockTraits(
        fused_qkv=True,
        split_rotary=True,
        eager_only=True,
        keeps_weights=True,
        float_scores=True,
    ),
    "deepseek_v4": BlockTraits(eager_only=True),
    "ernie4_5": _ERNIE,
    "ernie4_5_moe": replace(_ERNIE, shared_first=True),
    "exaone4": _POST_NORM,
    "falcon": BlockTraits(
        order=Order.PARALLEL,
        fused_qkv=True,
        always_masked=True,
        unrepeated_keys=True,
        native_softmax=True,
        named_scores=True,
        keeps_weights=True,
    ),
    "gemma": BlockTraits(scaled_embeddings=True),
    "gemma2": BlockTraits(order=Order.SANDWICH, scaled_embeddings=True),
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gemma3n": _GEMMA3N,
    "gemma3n_text": _GEMMA3N,
    "gemma4": _GEMMA4,
    "gemma4_text": _GEMMA4,
    "falcon_h1": _GRANITE,
    "glm": BlockTraits(fused_gate=True, spread_tables=True),
    "glm4": _GLM4,
    "glm4v_text": _GLM4,
    "gpt2": replace(_GPT, native_softmax=True),
    "gpt_bigcode": _GPT,
    "gpt_neo": BlockTraits(
        scaled_embeddings=True,
        position_embeddings=True,
        eager_only=True,
        keeps_weights=True,
        float_scores=True,
    ),
    "gpt_neox": BlockTraits(fused_qkv=True),
    "gpt_oss": BlockTraits(eager_only=True, expert_biases=True, clamped_gate=True),
    "gptj": BlockTraits(
        order=Order.PARALLEL,
        split_rotary=True,
        eager_only=True,
        keeps_weights=True,
        float_scores=True,
    ),
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "granitemoehybrid": replace(_GRANITE, fused_gate=True, plain_gate=True),
    "granitemoeshared": _GRANITE,
    "granitemoe_swa": _GRANITE,
    "granite_swa": _GRANITE,
    "hunyuan_v1_moe": BlockTraits(float_routing=True, shared_first=True),
    "lfm3": BlockTraits(float_rotary=True),
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
    "mimo_v2_flash": BlockTraits(eager_only=True, native_softmax=True, float_routing=True),
    "mpt": BlockTraits(fused_qkv=True, eager_only=True, keeps_weights=True),
    "nanochat": BlockTraits(scaled_logits=True),
    "olmo": BlockTraits(float_rotary=True),
    "olmo2": _OLMO,
    "olmo3": replace(_OLMO, tables_by_reach=True),
    "opt": BlockTraits(scaled_embeddings=True, position_embeddings=True, inline_ffn=True),
    "phi": replace(_PARALLEL, split_rotary=True),
    "phi3": BlockTraits(fused_qkv=True, fused_gate=True),
    "qwen2_moe": replace(_SHARED_FIRST, idle_window_mask=True),
    "qwen3_5_moe": _SHARED_FIRST,
    "qwen3_5_moe_text": _SHARED_FIRST,
    "qwen3_next": replace(_SHARED_FIRST, fused_gated_delta=True),
    "stablelm": BlockTraits(split_rotary=True, keeps_attention=True, keeps_normed=True),
    **dict.fromkeys(
        (
            "afmoe",
            "axk1",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "dots1",
            "exaone_moe",
            "glm4_moe",
            "glm4_moe_lite",
            "glm4v_moe_text",
            "glm_moe_dsa",
            "hy_v3",
            "kimi_k2",
            "kimi_linear",
            "minimax",
            "minimax_m2",
            "mistral4",
            "mixtral",
            "nemotron_h",
            "solar_open",
        ),
        _FLOAT_ROUTING,
    ),
}


def block_traits_of(model_type: str) -> BlockTraits:
    return _FAMILIES.get(model_type, LLAMA)
