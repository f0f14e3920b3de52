"""The names that decoders give their sizes in config.json, over all families.

The fallback reads an unknown type by them: any of the names in a row says the same."""

HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim", "dim")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers")
VOCAB = ("vocab_size", "padded_vocab_size", "n_vocab")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_head_kv", "num_query_groups")
HEAD_DIM = ("head_dim", "kv_channels", "attention_head_dim", "head_size", "d_head", "d_kv")
WIDTHS = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "mlp_hidden_size")
MORE_WIDTHS = ("intermediate_size_mlp", "dense_intermediate_size", "mlp_intermediate_size")
EXPERTS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "n_experts",
    "num_routed_experts",
    "ffn_num_experts",
    "moe_n_experts",
    "num_moe_experts",
)
EXPERT_WIDTHS = (
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "moe_ffn_hidden_size",
    "expert_intermediate_size",
)
SHARED = (
    "n_shared_experts",
    "num_shared_experts",
    "num_shared_expert",
    "moe_num_shared_experts",
)
SHARED_WIDTHS = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
SWITCHES = ("use_moe", "is_moe", "enable_moe", "enable_moe_block", "moe_enabled")
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "experts_per_tok",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k_experts",
    "num_selected_experts",
    "num_activated_experts",
    "n_activated_experts",
    "moe_router_topk",
)
FIRST_DENSE = ("first_k_dense_replace", "num_dense_layers", "n_dense_layers", "num_first_dense")
WINDOWS = (
    "sliding_window",
    "sliding_window_size",
    "attention_window_size",
    "window_size",
    "local_attention_window",
    "swa_window_size",
)
GATED = ("silu", "swish", "swiglu")
"""Activations of gated FFNs alone; GELU and its like are used with and without a gate."""
