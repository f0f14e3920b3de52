"""GGUF keys as fields of a config.json, family by family: Gemma 3n and 4, Bloom, GPT-2, Falcon."""

from .fields import Config, biases, experts, shared, shared_width
from .keys import GgufKeys


def gemma_nano(k: GgufKeys) -> Config:
    inputs = k.count("embedding_length_per_layer_input")
    return {
        "intermediate_size": k.per_layer("feed_forward_length"),
        "num_kv_shared_layers": k.optional("attention.shared_kv_layers") or 0,
        "hidden_size_per_layer_input": inputs,
        "vocab_size_per_layer_input": k.rows("per_layer_token_embd.weight"),
        "laurel_rank": k.in_any("laurel_l.weight", 1),
        "altup_num_inputs": k.optional("altup.num_inputs") or 4,
    }


def gemma_four(k: GgufKeys) -> Config:
    """Sliding layers have heads of their own; wide FFNs are those of layers that share a cache."""
    widths = k.per_layer("feed_forward_length")
    heads = k.per_layer("attention.head_count_kv")
    pattern = k.raw("attention.sliding_window_pattern")
    slides = list(pattern) if isinstance(pattern, tuple) else [True] * k.layers
    full = [heads[i] for i in range(k.layers) if not slides[i]]
    sliding = [heads[i] for i in range(k.layers) if slides[i]]
    config: Config = {
        "intermediate_size": widths[0],
        "use_double_wide_mlp": max(widths) == 2 * widths[0],
        "num_kv_shared_layers": k.optional("attention.shared_kv_layers") or 0,
        "head_dim": k.optional("attention.key_length_swa") or k.count("attention.key_length"),
        "global_head_dim": k.count("attention.key_length"),
        "num_key_value_heads": (sliding or full)[0],
        "num_global_key_value_heads": full[0] if full and full[0] != (sliding or full)[0] else None,
        "hidden_size_per_layer_input": k.optional("embedding_length_per_layer_input") or 0,
        "vocab_size_per_layer_input": k.rows("per_layer_token_embd.weight") or 1,
        "attention_k_eq_v": any(
            not slides[i] and k.in_layer(i, "attn_k.weight") and not k.in_layer(i, "attn_v.weight")
            for i in range(k.layers)
        ),
        "enable_moe_block": bool(k.optional("expert_count")),
    }
    if k.optional("expert_count"):
        config |= experts("num_experts", "moe_intermediate_size", "top_k_experts")(k)
    return config


def bloom(k: GgufKeys) -> Config:
    return {
        "n_layer": k.layers,
        "n_head": k.count("attention.head_count"),
        "num_hidden_layers": ...,
        "num_attention_heads": ...,
        "num_key_value_heads": ...,
        "head_dim": ...,
        "intermediate_size": ...,
    }


def gpt2(k: GgufKeys) -> Config:
    names = {
        "n_embd": k.count("embedding_length"),
        "n_layer": k.layers,
        "n_head": k.count("attention.head_count"),
        "n_positions": k.count("context_length"),
        "n_inner": k.in_any("ffn_up.weight", 1) or k.greatest("feed_forward_length"),
    }
    gone = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    return {**names, **dict.fromkeys((*gone, "head_dim", "intermediate_size"), ...)}


def big_code(k: GgufKeys) -> Config:
    heads = k.optional("attention.head_count_kv") or k.count("attention.head_count")
    return {**gpt2(k), "multi_query": heads == 1}


def falcon(k: GgufKeys) -> Config:
    """Which of its three generations a file is, by the tensors that it has."""
    heads, kv = k.count("attention.head_count"), k.optional("attention.head_count_kv") or 1
    new = k.has("attn_norm_2.weight") or (kv not in (1, heads))
    return {
        "num_kv_heads": kv,
        "new_decoder_architecture": new,
        "multi_query": kv == 1,
        "ffn_hidden_size": k.in_any("ffn_up.weight", 1) or k.greatest("feed_forward_length"),
        "parallel_attn": not k.has("ffn_norm.weight"),
        "bias": k.has("attn_qkv.bias"),
        "alibi": False,
        "num_ln_in_parallel_attn": 2 if k.has("attn_norm_2.weight") else 1,
        "num_key_value_heads": ...,
        "head_dim": ...,
        "intermediate_size": ...,
    }


def neox(k: GgufKeys) -> Config:
    return {"attention_bias": k.has("attn_qkv.bias"), "num_key_value_heads": ..., "head_dim": ...}


def nemotron_kinds(k: GgufKeys) -> Config:
    """What each block is, by the tensors that it has: Mamba-2, attention, experts or an MLP."""
    letters = []
    for i in range(k.layers):
        if k.in_layer(i, "ssm_in.weight"):
            letters.append("M")
        elif k.in_layer(i, "attn_k.weight"):
            letters.append("*")
        else:
            letters.append("E" if k.in_layer(i, "ffn_gate_inp.weight") else "-")
    heads = k.count("ssm.time_step_rank")
    config: Config = {
        "hybrid_override_pattern": "".join(letters),
        "mamba_num_heads": heads,
        "mamba_head_dim": k.count("ssm.inner_size") // max(heads, 1),
        "n_groups": k.count("ssm.group_count"),
        "ssm_state_size": k.count("ssm.state_size"),
        "conv_kernel": k.count("ssm.conv_kernel"),
        "chunk_size": 128,  # of every published model; no file says it
        "intermediate_size": k.in_any("ffn_down.weight", 0) or k.greatest("feed_forward_length"),
        "use_conv_bias": k.has("ssm_conv1d.bias"),
        "num_hidden_layers": ...,
        **biases(k),
    }
    if k.optional("expert_count"):
        config |= experts("n_routed_experts")(k) | shared("n_shared_experts")(k)
        config |= shared_width("moe_shared_expert_intermediate_size")(k)
        if k.optional("moe_latent_size"):
            config["moe_latent_size"] = k.count("moe_latent_size")
    return config
