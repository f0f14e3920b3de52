"""Predicted memory, term by term: weights, KV cache, activation peak, overhead."""

DOOR = (
    "activation.family_traits",
    "activation.forward_step",
    "activation.kvpareto_engine",
    "activation.peak",
    "activation.workspace",
    "estimate",
    "gguf_weights",
    "estimate_space",
    "kv_cache",
    "overhead",
    "run_dtype",
    "weight_files",
    "weights",
)
"""Modules that other rooms may import."""
