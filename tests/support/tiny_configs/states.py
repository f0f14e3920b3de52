"""Models with recurrent states or convolutions, alone and beside attention."""

from typing import Any

from tests.support.tiny_configs.parts import FULL, HEAD, LINEAR, MAMBA2, MLA, MOE, config

STATES: dict[str, dict[str, Any]] = {
    "qwen3_next": config(
        "qwen3_next", HEAD, MOE, LINEAR, shared_expert_intermediate_size=28, mlp_only_layers=[1]
    ),
    "qwen3_5_text": config("qwen3_5_text", HEAD, LINEAR, full_attention_interval=2),
    "qwen3_5_moe_text": config(
        "qwen3_5_moe_text", HEAD, MOE, LINEAR, shared_expert_intermediate_size=28
    ),
    "granitemoehybrid": config(
        "granitemoehybrid",
        MAMBA2,
        num_local_experts=3,
        shared_intermediate_size=28,
        layer_types=["mamba", "attention", "mamba", "mamba"],
    ),
    "granitemoehybrid-dense": config(
        "granitemoehybrid",
        MAMBA2,
        num_local_experts=0,
        shared_intermediate_size=28,
        mamba_d_head="auto",
        mamba_conv_bias=False,
        layers_block_type=["mamba", "attention", "mamba", "mamba"],
    ),
    "bamba": config("bamba", MAMBA2, attn_layer_indices=[1]),
    "falcon_h1": config("falcon_h1", MAMBA2, HEAD, mamba_d_ssm=96, mamba_rms_norm=True),
    "jamba": config("jamba", num_experts=3, attn_layer_period=3, attn_layer_offset=1),
    "nemotron_h": config(
        "nemotron_h",
        HEAD,
        hybrid_override_pattern="M-E*ME",
        mamba_num_heads=4,
        mamba_head_dim=8,
        n_groups=2,
        ssm_state_size=6,
        n_routed_experts=3,
        moe_intermediate_size=24,
        moe_shared_expert_intermediate_size=28,
        moe_latent_size=16,
        num_hidden_layers="absent",
    ),
    "zamba2": config(
        "zamba2",
        num_key_value_heads=6,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid", "hybrid"],
        num_hidden_layers=5,
        num_mem_blocks=2,
        adapter_rank=4,
        n_mamba_heads=8,
        mamba_d_state=6,
        use_shared_attention_adapter=True,
    ),
    "lfm2": config("lfm2", full_attn_idxs=[2], conv_bias=True, block_auto_adjust_ff_dim=True),
    "lfm2_moe": config(
        "lfm2_moe", MOE, layer_types=["conv", FULL, "conv", "conv"], num_dense_layers=2
    ),
    "olmo_hybrid": config("olmo_hybrid", linear_conv_kernel_dim=3),
    "minimax": config("minimax", HEAD, num_local_experts=3),
    "kimi_linear": config(
        "kimi_linear",
        MLA,
        MOE,
        q_lora_rank=None,
        linear_attn_config={
            "full_attn_layers": [2],
            "kda_layers": [1, 3, 4],
            "num_heads": 3,
            "head_dim": 10,
            "short_conv_kernel_size": 4,
        },
        num_experts_per_token=2,
        num_experts_per_tok="absent",
    ),
    "mamba": {
        "model_type": "mamba",
        "dtype": "bfloat16",
        "vocab_size": 97,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "state_size": 6,
        "use_bias": True,
    },
    "falcon_mamba": {
        "model_type": "falcon_mamba",
        "dtype": "float16",
        "vocab_size": 97,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "time_step_rank": 5,
    },
    "mamba2": {
        "model_type": "mamba2",
        "dtype": "bfloat16",
        "vocab_size": 97,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_heads": 12,
        "head_dim": 8,
        "n_groups": 2,
        "state_size": 6,
    },
    "rwkv": {
        "model_type": "rwkv",
        "dtype": "bfloat16",
        "vocab_size": 97,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "attention_hidden_size": 48,
    },
}
