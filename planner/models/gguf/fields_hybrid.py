"""GGUF keys as fields of a config.json: MLA, experts, state spaces, short convolutions."""

from .fields import (
    FULL,
    Config,
    biases,
    experts,
    first_dense,
    routed_layers,
    shared,
    shared_width,
    without,
)
from .keys import GgufKeys


def deepseek(k: GgufKeys) -> str:
    """deepseek2 holds DeepSeek V2 and V3, GLM 4.7 Flash, Kimi K2: V3's routers have a bias."""
    return "deepseek_v3" if k.has("exp_probs_b.bias") else "deepseek_v2"


def latent(k: GgufKeys) -> Config:
    """MLA. Older files name the heads' sizes without `_mla`."""
    rope, rank = k.count("rope.dimension_count"), k.count("attention.kv_lora_rank")
    key = k.optional("attention.key_length_mla") or k.count("attention.key_length")
    value = k.optional("attention.value_length_mla") or k.optional("attention.value_length")
    if value is None:
        value = (k.in_any("attn_output.weight", 0) or 0) // k.count("attention.head_count")
    heads = k.count("attention.head_count")
    return {
        "q_lora_rank": k.optional("attention.q_lora_rank") or None,
        "kv_lora_rank": rank,
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": key - rope,
        "v_head_dim": value,
        "head_dim": rope,
        "num_key_value_heads": heads,
        "attention_bias": k.has("attn_q_a.bias", "attn_kv_a_mqa.bias", "attn_output.bias"),
        "mlp_bias": biases(k)["mlp_bias"],
    }


def moe_layers(k: GgufKeys) -> Config:
    if not k.optional("expert_count"):
        return {"n_routed_experts": None, "first_k_dense_replace": k.layers}
    return {
        **experts("n_routed_experts")(k),
        **shared("n_shared_experts")(k),
        **first_dense()(k),
        "n_group": k.optional("expert_group_count") or 1,
        "topk_group": k.optional("expert_group_used_count") or 1,
    }


def mamba2_sizes(k: GgufKeys) -> Config:
    """Mamba-2's sizes under the names of Bamba's and Falcon-H1's configs."""
    heads = k.count("ssm.time_step_rank")
    return {
        "mamba_n_heads": heads,
        "mamba_d_head": k.count("ssm.inner_size") // max(heads, 1),
        "mamba_n_groups": k.count("ssm.group_count"),
        "mamba_d_state": k.count("ssm.state_size"),
        "mamba_d_conv": k.count("ssm.conv_kernel"),
        "mamba_expand": k.count("ssm.inner_size") / k.count("embedding_length"),
        "mamba_chunk_size": 256,  # of every published model; no file says it
        "mamba_d_ssm": k.count("ssm.inner_size"),
        "mamba_rms_norm": k.has("ssm_norm.weight"),
        "mamba_conv_bias": k.has("ssm_conv1d.bias"),
        "mamba_proj_bias": k.has("ssm_in.bias"),
    }


def granite_type(k: GgufKeys) -> str:
    """granitehybrid holds Bamba too, whose FFN is neither routed nor shared."""
    return (
        "bamba"
        if k.has("ffn_down.weight") and not k.has("ssm_in.bias") and _is_bamba(k)
        else ("granitemoehybrid")
    )


def _is_bamba(k: GgufKeys) -> bool:
    return k.raw("residual_scale") is None


def indexer(k: GgufKeys) -> Config:
    """DeepSeek's sparse attention."""
    types = k.raw("attention.indexer.types")
    named = [("full" if own else "shared") for own in types] if isinstance(types, tuple) else None
    return {
        "index_n_heads": k.count("attention.indexer.head_count"),
        "index_head_dim": k.count("attention.indexer.key_length"),
        "index_topk": k.count("attention.indexer.top_k"),
        **({"indexer_types": named} if named else {}),
    }


def gated_delta(k: GgufKeys) -> Config:
    """Qwen3-Next and 3.5: gated delta rule, softmax attention every few layers."""
    heads = k.count("ssm.time_step_rank")
    kinds = [
        "linear_attention" if k.in_layer(i, "ssm_out.weight") else FULL for i in range(k.layers)
    ]
    return {
        "layer_types": kinds,
        "linear_num_key_heads": k.count("ssm.group_count"),
        "linear_num_value_heads": heads,
        "linear_key_head_dim": k.count("ssm.state_size"),
        "linear_value_head_dim": k.count("ssm.inner_size") // max(heads, 1),
        "linear_conv_kernel_dim": k.count("ssm.conv_kernel"),
        "attention_bias": k.has("attn_q.bias"),
    }


def granite_kinds(k: GgufKeys) -> Config:
    kinds = ["mamba" if k.in_layer(i, "ssm_in.weight") else "attention" for i in range(k.layers)]
    moe = bool(k.optional("expert_count"))
    if granite_type(k) == "bamba":
        return {"attn_layer_indices": [i for i, kind in enumerate(kinds) if kind == "attention"]}
    return {
        "layer_types": kinds,
        **(experts("num_local_experts", "intermediate_size")(k) if moe else {}),
        **({} if moe else {"num_local_experts": 0}),
        **shared_width("shared_intermediate_size")(k),
    }


def conv_kinds(k: GgufKeys) -> Config:
    kinds = ["conv" if k.in_layer(i, "shortconv.conv.weight") else FULL for i in range(k.layers)]
    return {
        "layer_types": kinds,
        "conv_L_cache": k.count("shortconv.l_cache"),
        "conv_bias": k.has("shortconv.conv.bias"),
        "block_auto_adjust_ff_dim": False,
    }


def jamba_kinds(k: GgufKeys) -> Config:
    """Which layers attend and which are routed, as periods and offsets; sizes of Mamba."""
    attends = [i for i in range(k.layers) if k.in_layer(i, "attn_k.weight")]
    routed = routed_layers(k)
    return {
        **_period("attn_layer", attends, k.layers),
        **_period("expert_layer", routed, k.layers),
        **(experts("num_experts", "moe_intermediate_size")(k) if routed else {"num_experts": 1}),
        "mamba_d_state": k.count("ssm.state_size"),
        "mamba_d_conv": k.count("ssm.conv_kernel"),
        "mamba_expand": k.count("ssm.inner_size") // k.count("embedding_length"),
        "mamba_dt_rank": k.count("ssm.time_step_rank"),
        "mamba_conv_bias": k.has("ssm_conv1d.bias"),
        "mamba_proj_bias": k.has("ssm_in.bias"),
    }


def _period(name: str, layers: list[int], total: int) -> Config:
    """Layers offset, offset + period, ... as Jamba's fields have it."""
    if not layers:
        return {f"{name}_period": total + 1, f"{name}_offset": total}
    period = layers[1] - layers[0] if len(layers) > 1 else total + 1
    return {f"{name}_period": period, f"{name}_offset": layers[0]}


def mamba1(k: GgufKeys) -> Config:
    return {
        "state_size": k.count("ssm.state_size"),
        "conv_kernel": k.count("ssm.conv_kernel"),
        "expand": k.count("ssm.inner_size") / k.count("embedding_length"),
        "intermediate_size": k.count("ssm.inner_size"),
        "time_step_rank": k.count("ssm.time_step_rank"),
        "use_conv_bias": k.has("ssm_conv1d.bias"),
        "use_bias": k.has("ssm_in.bias"),
    }


def mamba2(k: GgufKeys) -> Config:
    heads = k.count("ssm.time_step_rank")
    return {
        "state_size": k.count("ssm.state_size"),
        "conv_kernel": k.count("ssm.conv_kernel"),
        "expand": k.count("ssm.inner_size") / k.count("embedding_length"),
        "num_heads": heads,
        "head_dim": k.count("ssm.inner_size") // max(heads, 1),
        "n_groups": k.count("ssm.group_count"),
        "use_conv_bias": k.has("ssm_conv1d.bias"),
        "use_bias": k.has("ssm_in.bias"),
        "chunk_size": 256,  # of every published model; no file says it
    }


NO_ATTENTION = without(
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"
)


def mamba_type(k: GgufKeys) -> str:
    return "falcon_mamba" if k.raw("ssm.dt_b_c_rms") else "mamba"
