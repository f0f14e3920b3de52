"""What small configs are made of: widths, and what a family adds to them."""

from typing import Any

BASE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "dtype": "bfloat16",
    "pad_token_id": 0,
}
HEAD = {"head_dim": 20}
MOE = {"moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 2}
ROUTED = {
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
MLA = {
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 14,
    "num_key_value_heads": 6,
}
DSA = {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 4}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 10,
    "linear_conv_kernel_dim": 3,
}
MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 12,
    "mamba_n_groups": 2,
    "mamba_d_state": 6,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
TIED = {"tie_word_embeddings": True}
UNTIED = {"tie_word_embeddings": False}
BIASED = {"attention_bias": True, "mlp_bias": True}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
WINDOW = {"sliding_window": 7}
FULL, SLIDING = "full_attention", "sliding_attention"
MIXED = {"layer_types": [SLIDING, FULL, SLIDING, SLIDING], **WINDOW}


def config(model_type: str, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {"model_type": model_type, **BASE}
    for part in parts:
        merged.update(part)
    merged.update(fields)
    return {k: v for k, v in merged.items() if v != "absent"}
