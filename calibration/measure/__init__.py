"""What a configuration costs in accuracy, measured: task scores, divergence, layer by layer."""

DOOR = (
    "affine_maps",
    "bench",
    "divergence",
    "early_stopping",
    "layer_probe",
    "layer_sensitivity",
    "prompts",
    "read_attention",
    "rows",
    "runner",
)
"""Modules that other rooms may import."""
