"""Configs of families that are newer than transformers' classes, or have none, as published.

Those of SmallThinker, ERNIE 4.5 VL and MiniCPM-V are written from memory.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "data" / "published"

# fmt: off
HUNYUAN_LARGE = {"model_type": "hunyuan", "hidden_size": 6400, "intermediate_size": 18304,
                 "num_attention_heads": 80, "num_hidden_layers": 64, "num_key_value_heads": 8,
                 "num_experts": 16, "moe_topk": 1, "num_shared_expert": 1,
                 "use_mixed_mlp_moe": True, "use_cla": True, "cla_share_factor": 2,
                 "use_qk_norm": True, "vocab_size": 128512, "tie_word_embeddings": True,
                 "torch_dtype": "bfloat16"}
GROK_2 = {"model_type": "git", "architectures": ["Grok1ForCausalLM"], "hidden_size": 8192,
          "intermediate_size": 32768, "moe_intermediate_size": 16384, "num_experts_per_tok": 2,
          "num_local_experts": 8, "residual_moe": True, "num_attention_heads": 64,
          "num_key_value_heads": 8, "num_hidden_layers": 64, "head_dim": 128,
          "vocab_size": 131072, "sliding_window_size": -1, "global_attn_every_n": 1}
SMALLTHINKER_21B = {"architectures": ["SmallThinkerForCausalLM"], "torch_dtype": "bfloat16",
                    "hidden_size": 2560, "num_hidden_layers": 52, "num_attention_heads": 28,
                    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
                    "max_position_embeddings": 16384, "moe_num_primary_experts": 64,
                    "moe_num_active_primary_experts": 6, "moe_ffn_hidden_size": 768,
                    "moe_layer_layout": [1] * 52, "rope_layout": [0, 1, 1, 1] * 13,
                    "sliding_window_layout": [0, 1, 1, 1] * 13, "sliding_window_size": 4096,
                    "moe_enable_early_router": True, "moe_enable_secondary_experts": False,
                    "moe_primary_router_apply_softmax": False, "tie_word_embeddings": False}
ERNIE_VL = {"architectures": ["Ernie4_5_VLMoeForConditionalGeneration"],
            "model_type": "ernie4_5_moe_vl", "torch_dtype": "bfloat16", "hidden_size": 2560,
            "intermediate_size": 12288, "moe_intermediate_size": [1536, 512], "moe_k": 6,
            "moe_num_experts": [64, 64], "moe_num_shared_experts": 2, "moe_layer_interval": 1,
            "moe_layer_start_index": [1, 1], "moe_layer_end_index": [29, 28],
            "num_hidden_layers": 28, "num_attention_heads": 20, "num_key_value_heads": 4,
            "pixel_hidden_size": 1280, "temporal_conv_size": 2, "tie_word_embeddings": True,
            "use_bias": False, "vocab_size": 103424, "max_position_embeddings": 131072,
            "vision_config": {"model_type": "DFNRope_vision_transformer", "depth": 32,
                              "embed_dim": 1280, "hidden_size": 1280, "mlp_ratio": 4,
                              "num_heads": 16, "in_channels": 3, "patch_size": 14,
                              "spatial_merge_size": 2, "hidden_act": "quick_gelu"}}
MINICPM_V_2_6 = {"version": 2.6, "architectures": ["MiniCPMV"], "model_type": "minicpmv",
                 "torch_dtype": "bfloat16", "hidden_size": 3584, "intermediate_size": 18944,
                 "max_position_embeddings": 32768, "max_window_layers": 28,
                 "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
                 "sliding_window": 131072, "use_sliding_window": False,
                 "tie_word_embeddings": False, "vocab_size": 151666, "batch_vision_input": True,
                 "drop_vision_last_layer": False, "image_size": 448, "patch_size": 14,
                 "query_num": 64, "slice_mode": True,
                 "slice_config": {"max_slice_nums": 9, "model_type": "minicpmv", "patch_size": 14},
                 "vision_config": {"model_type": "siglip", "hidden_size": 1152,
                                   "image_size": 980, "intermediate_size": 4304,
                                   "num_attention_heads": 16, "num_hidden_layers": 27,
                                   "patch_size": 14}}
DEEPSEEK_OCR = {
    "model_type": "deepseek_vl_v2", "torch_dtype": "bfloat16",
    "language_config": {"vocab_size": 129280, "hidden_size": 1280, "intermediate_size": 6848,
                        "moe_intermediate_size": 896, "num_hidden_layers": 12,
                        "num_attention_heads": 10, "num_key_value_heads": 10,
                        "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2,
                        "first_k_dense_replace": 1},
    "projector_config": {"input_dim": 2048, "n_embed": 1280, "projector_type": "linear"},
    "vision_config": {"image_size": 1024, "width": {
        "clip-l-14-224": {"heads": 16, "image_size": 224, "layers": 24, "patch_size": 14,
                          "width": 1024},
        "sam_vit_b": {"downsample_channels": [512, 1024], "global_attn_indexes": [2, 5, 8, 11],
                      "heads": 12, "layers": 12, "width": 768}}}}
OURO = {"model_type": "ouro", "hidden_size": 2048, "intermediate_size": 5632,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128,
        "num_hidden_layers": 24, "total_ut_steps": 4, "vocab_size": 49152,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
PLAMO_2_1B = {"model_type": "plamo2", "hidden_size": 2048, "hidden_size_per_head": 128,
              "intermediate_size": 8192, "mamba_d_conv": 4, "mamba_d_state": 64,
              "mamba_num_heads": 32, "mamba_step": 2, "num_attention_heads": 16,
              "num_hidden_layers": 16, "num_key_value_heads": 1, "vocab_size": 100000,
              "attention_window_size": 2048, "torch_dtype": "bfloat16"}
SALA = {"model_type": "minicpm_sala", "hidden_size": 4096, "intermediate_size": 16384,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128,
        "num_hidden_layers": 4, "lightning_nh": 32, "lightning_nkv": 32,
        "lightning_head_dim": 128, "qk_norm": True, "use_output_gate": True,
        "use_output_norm": True, "attn_use_output_gate": True, "vocab_size": 73448,
        "mixer_types": ["minicpm4", "lightning-attn", "lightning-attn", "minicpm4"],
        "torch_dtype": "bfloat16"}
INTERNVL = {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"],
    "downsample_ratio": 0.5, "force_image_size": 448, "torch_dtype": "bfloat16",
    "llm_config": {"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
        "tie_word_embeddings": False},
    "vision_config": {"model_type": "intern_vit_6b", "hidden_size": 1024, "image_size": 448,
        "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
        "patch_size": 14, "num_channels": 3, "qkv_bias": True, "norm_type": "layer_norm"}}
LONGCAT = {"model_type": "longcat_flash", "dtype": "bfloat16", "vocab_size": 131072,
    "hidden_size": 6144, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048, "num_layers": 28,
    "num_attention_heads": 64, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "qk_nope_head_dim": 128, "n_routed_experts": 512, "zero_expert_num": 256,
    "moe_topk": 12, "max_position_embeddings": 131072}
LONGCAT_LITE = {"model_type": "longcat_flash_ngram", "hidden_size": 3072, "num_layers": 2,
                "vocab_size": 131072, "num_attention_heads": 32, "q_lora_rank": 1536,
                "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
                "v_head_dim": 128, "n_routed_experts": 8, "zero_expert_num": 4, "moe_topk": 2,
                "ffn_hidden_size": 6144, "expert_ffn_hidden_size": 1024,
                "ngram_vocab_size_ratio": 78, "emb_neighbor_num": 4, "emb_split_num": 4}
# fmt: on


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found
