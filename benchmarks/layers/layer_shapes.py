"""Shapes of models whose layers are no plain attention: published ones, some cut in depth."""

from typing import Any

from kvpareto.planner.load_model import load_config
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec

_GRANITE: dict[str, Any] = {
    "model_type": "granitemoehybrid", "dtype": "bfloat16", "vocab_size": 100352,
    "num_hidden_layers": 40, "position_embedding_type": "nope", "tie_word_embeddings": True,
    "layer_types": [("attention" if i % 10 == 5 else "mamba") for i in range(40)],
    "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_chunk_size": 256,
    "embedding_multiplier": 12, "attention_multiplier": 0.0078125, "residual_multiplier": 0.22,
    "logits_scaling": 8, "max_position_embeddings": 131072, "intermediate_size": 512,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    # ibm-granite/granite-4.0-h-micro, -h-tiny
    "granite-4.0-h-micro": _GRANITE | {
        "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8,
        "shared_intermediate_size": 8192, "num_local_experts": 0, "num_experts_per_tok": 0,
        "mamba_n_heads": 64, "intermediate_size": 8192,
    },
    "granite-4.0-h-tiny": _GRANITE | {
        "hidden_size": 1536, "num_attention_heads": 12, "num_key_value_heads": 4,
        "shared_intermediate_size": 1024, "num_local_experts": 64, "num_experts_per_tok": 6,
        "mamba_n_heads": 48,
    },
    # ibm-granite/granite-4.0-micro: attention alone
    "granite-4.0-micro": _GRANITE | {
        "hidden_size": 2560, "num_attention_heads": 40, "num_key_value_heads": 8,
        "shared_intermediate_size": 8192, "num_local_experts": 0, "num_experts_per_tok": 0,
        "mamba_n_heads": 80, "intermediate_size": 8192, "position_embedding_type": "rope",
        "layer_types": ["attention"] * 40, "attention_multiplier": 0.015625,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000},
    },
    # ibm-ai-platform/Bamba-9B
    "bamba-9b": {
        "model_type": "bamba", "dtype": "bfloat16", "hidden_size": 4096, "num_hidden_layers": 20,
        "attn_layer_indices": [9, 18], "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "mamba_n_heads": 128, "mamba_d_head": 64,
        "mamba_d_state": 128, "vocab_size": 128256, "max_position_embeddings": 131072,
    },
    # tiiuae/Falcon-H1-7B-Instruct
    "falcon-h1-7b": {
        "model_type": "falcon_h1", "dtype": "bfloat16", "hidden_size": 3072,
        "num_hidden_layers": 24, "num_attention_heads": 12, "num_key_value_heads": 2,
        "head_dim": 128, "intermediate_size": 12288, "mamba_d_ssm": 3072, "mamba_n_heads": 24,
        "mamba_d_head": 128, "mamba_d_state": 256, "mamba_n_groups": 1, "mamba_chunk_size": 256,
        "vocab_size": 130048, "max_position_embeddings": 131072,
    },
    # LiquidAI/LFM2-2.6B
    "lfm2-2.6b": {
        "model_type": "lfm2", "dtype": "bfloat16", "hidden_size": 2048, "num_hidden_layers": 30,
        "full_attn_idxs": [2, 6, 9, 12, 15, 18, 21, 25], "num_attention_heads": 32,
        "num_key_value_heads": 8, "block_ff_dim": 10752, "block_auto_adjust_ff_dim": False,
        "vocab_size": 65536, "max_position_embeddings": 128000,
    },
    # zai-org/GLM-4.7-Flash
    "glm-4.7-flash": {
        "model_type": "glm4_moe_lite", "dtype": "bfloat16", "hidden_size": 2048,
        "num_hidden_layers": 24, "num_attention_heads": 20, "num_key_value_heads": 20,
        "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64,
        "v_head_dim": 256, "intermediate_size": 10240, "moe_intermediate_size": 1536,
        "n_routed_experts": 64, "num_experts_per_tok": 4, "n_shared_experts": 1,
        "vocab_size": 154880, "max_position_embeddings": 202752,
    },
    # moonshotai/Kimi-Linear-48B-A3B-Instruct
    "kimi-linear": {
        "model_type": "kimi_linear", "dtype": "bfloat16", "hidden_size": 2304,
        "num_hidden_layers": 8, "num_attention_heads": 32, "num_key_value_heads": 32,
        "head_dim": 72, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "q_lora_rank": None, "intermediate_size": 9216,
        "moe_intermediate_size": 1024, "num_experts": 256, "num_experts_per_token": 8,
        "num_shared_experts": 1, "first_k_dense_replace": 1, "vocab_size": 163840,
        "linear_attn_config": {"full_attn_layers": [4, 8], "kda_layers": [1, 2, 3, 5, 6, 7],
                               "head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4},
        "max_position_embeddings": 1048576,
    },
    # Zyphra/Zamba2-7B
    "zamba2-7b": {
        "model_type": "zamba2", "dtype": "bfloat16", "hidden_size": 3584,
        "num_hidden_layers": 27, "num_attention_heads": 32, "num_key_value_heads": 32,
        "attention_head_dim": 224, "intermediate_size": 14336, "mamba_d_state": 64,
        "mamba_ngroups": 2, "n_mamba_heads": 112, "mamba_headdim": 64, "mamba_expand": 2,
        "num_mem_blocks": 2, "use_mem_rope": True, "use_shared_attention_adapter": False,
        "adapter_rank": 128, "vocab_size": 32000, "max_position_embeddings": 4096,
        "layers_block_type": [("hybrid" if i in (5, 11, 17, 23) else "mamba") for i in range(27)],
        "hybrid_layer_ids": [5, 11, 17, 23],
    },
    # MiniMaxAI/MiniMax-M1-40k, its experts and its layers cut
    "minimax-m1": {
        "model_type": "minimax", "dtype": "bfloat16", "hidden_size": 6144,
        "num_hidden_layers": 8, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 9216, "num_local_experts": 8,
        "num_experts_per_tok": 2, "vocab_size": 200064, "max_position_embeddings": 1000000,
        "layer_types": (["linear_attention"] * 7 + ["full_attention"]), "block_size": 256,
    },
    # google/gemma-3n-E4B-it, its decoder
    "gemma-3n-e4b": {
        "model_type": "gemma3n_text", "dtype": "bfloat16", "hidden_size": 2048,
        "num_hidden_layers": 35, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 256, "intermediate_size": 16384, "sliding_window": 512,
        "num_kv_shared_layers": 15, "vocab_size": 262400, "max_position_embeddings": 32768,
    },
    # google/gemma-3n-E2B-it, its decoder; of the vocabulary what has an embedding for each layer
    "gemma-3n-e2b": {
        "model_type": "gemma3n_text", "dtype": "bfloat16", "hidden_size": 2048,
        "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 256, "intermediate_size": 8192, "sliding_window": 512,
        "num_kv_shared_layers": 10, "vocab_size": 262144, "max_position_embeddings": 32768,
        "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 20,
    },
}  # fmt: skip
PUBLISHED = {
    "deepseek-v2-lite": "deepseek-ai/DeepSeek-V2-Lite-Chat",
    "gemma-2-9b": "google/gemma-2-9b-it",
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "llama-4-scout": "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "mixtral-8x7b": "mistralai/Mixtral-8x7B-v0.1",
    "nemotron-3-nano": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
    "qwen3-next": "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "qwen3.5-27b": "Qwen/Qwen3.5-27B",
}
DEPTH = {"gpt-oss-20b": 16, "llama-4-scout": 8, "mixtral-8x7b": 8, "nemotron-3-nano": 14,
         "qwen3-30b-a3b": 16, "qwen3-next": 8, "qwen3.5-27b": 24}  # fmt: skip


def architecture(model: str) -> dict[str, Any]:
    """The config that a model is run with: in 16 bits, as deep as DEPTH says."""
    found = MODELS.get(model) or load_config(PUBLISHED[model], offline=True).config
    content = dict(found.get("text_config", found)) | {"dtype": "bfloat16"}
    content.pop("quantization_config", None)
    depth = DEPTH.get(model)
    if depth is None:
        return content
    for name in ("layer_types", "hybrid_override_pattern", "layers_block_type", "no_rope_layers"):
        if content.get(name) is not None:
            content[name] = content[name][:depth]
    return content | {"num_hidden_layers": depth}


def spec_of(model: str) -> ModelSpec:
    return read_model(architecture(model), model)
