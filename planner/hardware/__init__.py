"""GPUs as their makers and drivers state them, and what was measured on this machine."""

DOOR = (
    "gpu_names",
    "gpus",
    "measured",
    "detect_gpu",
)
"""Modules that other rooms may import."""
