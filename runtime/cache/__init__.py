"""The packed KV cache: layouts, packing, quantization, rotation, smoothing."""

DOOR = (
    "kv_cache",
    "layer_shape",
    "layer_state",
    "packing",
    "quantize",
    "rotation",
    "smoothing",
    "state_layer",
)
"""Modules that other rooms may import."""
