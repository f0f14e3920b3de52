"""GGUF keys as fields of a config.json, for decoders whose layers are alike.

Which biases, norms and heads there are is read from the tensors, since keys do not say. The keys
are those of llama.cpp's converter (gguf-py/gguf/constants.py, conversion/).
"""

from collections.abc import Callable
from typing import Any

from .keys import GgufKeys

Config = dict[str, Any]
Extra = Callable[[GgufKeys], Config]
FULL, SLIDING = "full_attention", "sliding_attention"


def common(k: GgufKeys) -> Config:
    """The fields that every decoder has."""
    heads = k.greatest("attention.head_count") or 0
    if not heads and k.raw("ssm.inner_size") is None and k.raw("wkv.head_size") is None:
        raise k.wrong("attention.head_count", k.raw("attention.head_count"), "a number of heads")
    heads = max(heads, 1)  # no layer with attention
    hidden = k.count("embedding_length")
    head = k.optional("attention.key_length") or hidden // heads
    kv = k.greatest("attention.head_count_kv")
    if not kv:  # no key, or none for any layer: as many as its tensors have
        kv = (k.in_any("attn_k.weight", 1) or 0) // max(head, 1) or heads
    config: Config = {
        "hidden_size": hidden,
        "num_hidden_layers": k.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head,
        "vocab_size": k.rows("token_embd.weight") or k.count("vocab_size"),
        "max_position_embeddings": k.optional("context_length") or 0,
        "tie_word_embeddings": "output.weight" not in k.tensors,
        "dtype": "bfloat16",
    }
    width = k.in_any("ffn_down.weight", 0) or k.greatest("feed_forward_length")
    if width:
        config["intermediate_size"] = width
    return config


def biases(k: GgufKeys) -> Config:
    """Whether attention and FFN have biases, by the tensors."""
    return {
        "attention_bias": k.has("attn_q.bias", "attn_qkv.bias"),
        "mlp_bias": k.has("ffn_up.bias", "ffn_down.bias", "ffn_down_shexp.bias"),
    }


def windows(kinds: Callable[[GgufKeys], list[str]] | None = None) -> Extra:
    """Sliding layers: by the file's pattern, else by the architecture's own (`kinds`)."""

    def read(k: GgufKeys) -> Config:
        window = k.optional("attention.sliding_window")
        if not window:
            return {"sliding_window": None}
        pattern = k.raw("attention.sliding_window_pattern")
        if isinstance(pattern, tuple) and len(pattern) >= k.layers:
            types = [SLIDING if slides else FULL for slides in pattern[: k.layers]]
        elif isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
            types = [SLIDING if (i + 1) % pattern else FULL for i in range(k.layers)]
        elif kinds is not None:
            types = kinds(k)
        else:
            return {"sliding_window": window}
        return {"sliding_window": window, "layer_types": types}

    return read


def every(n: int) -> Callable[[GgufKeys], list[str]]:
    """Every n-th layer attends to all tokens, the others slide (llama.cpp's set_swa_pattern)."""
    return lambda k: [SLIDING if (i + 1) % n else FULL for i in range(k.layers)]


def softcaps(k: GgufKeys) -> Config:
    return {
        "attn_logit_softcapping": k.number("attn_logit_softcapping"),
        "final_logit_softcapping": k.number("final_logit_softcapping"),
    }


def experts(
    number: str = "num_experts",
    width: str = "moe_intermediate_size",
    used: str = "num_experts_per_tok",
) -> Extra:
    """Routed experts under the family's names; their width is the tensors' where no key has it."""

    def read(k: GgufKeys) -> Config:
        inner = k.optional("expert_feed_forward_length") or k.in_any("ffn_down_exps.weight", 0)
        return {
            number: k.count("expert_count"),
            used: k.count("expert_used_count"),
            width: inner or k.greatest("feed_forward_length"),
        }

    return read


def routed_layers(k: GgufKeys) -> list[int]:
    """Layers that have a router."""
    return [i for i in range(k.layers) if k.in_layer(i, "ffn_gate_inp.weight")]


def first_dense(field: str = "first_k_dense_replace") -> Extra:
    """How many layers there are before the first that routes, by the tensors."""
    return lambda k: {field: next(iter(routed_layers(k)), k.layers)}


def shared(field: str) -> Extra:
    """How many shared experts there are."""
    return lambda k: {field: k.optional("expert_shared_count") or 0}


def shared_width(field: str) -> Extra:
    def read(k: GgufKeys) -> Config:
        return {
            field: k.optional("expert_shared_feed_forward_length")
            or k.in_any("ffn_down_shexp.weight", 0)
            or 0
        }

    return read


def always(**fields: Any) -> Extra:
    return lambda k: fields


def without(*fields: str) -> Extra:
    """Fields of `common` that the family does not have."""
    return lambda k: dict.fromkeys(fields, ...)


def dense_experts(k: GgufKeys) -> str:
    """llama's architecture holds Llama, Mistral and Mixtral."""
    return "mixtral" if k.optional("expert_count") else "llama"


def olmo(k: GgufKeys) -> str:
    return "olmo3" if k.optional("attention.sliding_window") else "olmo2"


def granite_moe(k: GgufKeys) -> str:
    return "granitemoeshared" if k.has("ffn_down_shexp.weight") else "granitemoe"


def partial_rotary(k: GgufKeys) -> Config:
    """The part of a head that turns, where the file says it."""
    turned, head = k.optional("rope.dimension_count"), k.optional("attention.key_length")
    head = head or k.count("embedding_length") // (k.greatest("attention.head_count") or 1)
    return {"partial_rotary_factor": turned / head} if turned and head else {}


def llama4_layers(k: GgufKeys) -> Config:
    step = k.optional("interleave_moe_layer_step") or 1
    dense = k.in_any("ffn_down.weight", 0)
    return {
        "interleave_moe_layer_step": step,
        "intermediate_size": k.count("expert_feed_forward_length"),
        "intermediate_size_mlp": dense or k.greatest("feed_forward_length"),
        "num_local_experts": k.count("expert_count"),
        "num_experts_per_tok": k.count("expert_used_count"),
        "attention_chunk_size": 8192,  # llama.cpp's own, whatever the config had
        "use_qk_norm": False,
        "no_rope_layer_interval": 4,
    }


def qk_norm(k: GgufKeys) -> Config:
    return {"use_qk_norm": k.has("attn_q_norm.weight")}


def hunyuan_moe(k: GgufKeys) -> Config:
    return {
        "num_experts": k.count("expert_count"),
        "moe_topk": k.count("expert_used_count"),
        "moe_intermediate_size": k.count("expert_feed_forward_length"),
        "num_shared_expert": k.optional("expert_shared_count") or 0,
    }


def ernie(k: GgufKeys) -> Config:
    return {"use_bias": k.has("attn_q.bias")}


def ernie_moe(k: GgufKeys) -> Config:
    inner, routed = k.count("expert_feed_forward_length"), routed_layers(k)
    return {
        "moe_num_experts": k.count("expert_count"),
        "moe_k": k.count("expert_used_count"),
        "moe_intermediate_size": inner,
        "moe_num_shared_experts": k.optional("expert_shared_count") or 0,
        "moe_layer_start_index": routed[0] if routed else k.layers,
        "moe_layer_end_index": routed[-1] if routed else -1,
        "moe_layer_interval": routed[1] - routed[0] if len(routed) > 1 else 1,
    }


def phi_window(k: GgufKeys) -> Config:
    """llama.cpp keeps phi3's window out of use: its cache holds every token."""
    return {"sliding_window": None}


def stable(k: GgufKeys) -> Config:
    return {
        "use_qkv_bias": k.has("attn_q.bias"),
        "use_parallel_residual": not k.has("ffn_norm.weight"),
        "qk_layernorm": k.has("attn_q_norm.weight"),
    }


def mixtral(k: GgufKeys) -> Config:
    if not k.optional("expert_count"):
        return {}
    return {**experts("num_local_experts", "intermediate_size")(k), "sliding_window": None}
