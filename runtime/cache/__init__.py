"""The packed KV cache: layouts, packing, quantization, rotation, smoothing."""

DOOR = (
    "affine",
    "block_scales",
    "cache_name",
    "hybrid_layer",
    "kv_cache",
    "layer_shape",
    "layer_state",
    "packed_layer",
    "packing",
    "quantize",
    "rotation",
    "smoothing",
    "state_layer",
)
"""Modules that other rooms may import."""
