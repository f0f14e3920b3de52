"""Decoders whose cache holds latents."""

from typing import Any

from tests.support.tiny_configs.parts import BIASED, DSA, MLA, ROUTED, config

LATENT: dict[str, dict[str, Any]] = {
    "glm4_moe_lite": config("glm4_moe_lite", ROUTED, MLA, first_k_dense_replace="absent"),
    "longcat_flash": config(
        "longcat_flash",
        MLA,
        num_layers=2,
        num_hidden_layers="absent",
        intermediate_size="absent",
        ffn_hidden_size=40,
        expert_ffn_hidden_size=24,
        n_routed_experts=4,
        zero_expert_num=2,
        moe_topk=2,
        head_dim=8,
    ),
    "deepseek_v2": config("deepseek_v2", ROUTED, MLA, q_lora_rank=None),
    "deepseek_v3": config("deepseek_v3", ROUTED, MLA, BIASED),
    "deepseek_v32": config("deepseek_v32", ROUTED, MLA, DSA),
    "glm_moe_dsa": config("glm_moe_dsa", ROUTED, MLA, DSA, index_topk_pattern="FSFS"),
    "deepseek_v4": config(
        "deepseek_v4",
        head_dim=24,
        num_hidden_layers=5,
        num_key_value_heads=1,
        q_lora_rank=20,
        o_groups=2,
        o_lora_rank=16,
        sliding_window=6,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        intermediate_size="absent",
        compress_ratios=[0, 128, 4, 128, 4],
        compress_rate_hca=8,
        index_n_heads=2,
        index_head_dim=12,
        index_topk=4,
        qk_rope_head_dim=8,
        num_hash_layers=2,
    ),
    "minicpm3": config("minicpm3", MLA),
    "mistral4": config("mistral4", ROUTED, MLA, sliding_window=None),
    "youtu": config("youtu", MLA, first_k_dense_replace=4),
}
