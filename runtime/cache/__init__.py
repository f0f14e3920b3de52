"""The packed KV cache: layouts, packing, quantization, rotation, smoothing."""
