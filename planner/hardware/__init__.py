"""GPUs as their makers and drivers state them, and what was measured on this machine."""

DOOR = (
    "compute_capability",
    "detect_gpu",
    "gpu_names",
    "gpu_set",
    "gpus",
    "measured",
)
"""Modules that other rooms may import."""
