"""Predicted memory, term by term: weights, KV cache, activation peak, overhead."""

DOOR = (
    "activation.family_traits",
    "activation.forward_step",
    "activation.kvpareto_engine",
    "activation.last_layer",
    "activation.peak",
    "activation.workspace",
    "estimate",
    "estimate_space",
    "gguf_weights",
    "kv_cache",
    "overhead",
    "run_dtype",
    "weight_files",
    "weights",
)
"""Modules that other rooms may import."""
