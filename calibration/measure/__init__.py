"""What a configuration costs in accuracy, measured: task scores, divergence, layer by layer."""

DOOR = (
    "affine_maps",
    "divergence",
    "early_stopping",
    "layer_probe",
    "layer_sensitivity",
    "prompts",
    "rows",
    "runner",
    "trial",
)
"""Modules that other rooms may import."""
