"""Predicted TTFT and TPOT: the work of each pass, and a roofline with measured efficiencies."""

DOOR = (
    "efficiency",
    "interval",
    "job",
    "model_class",
    "parts_cut",
    "predict",
    "roofline",
)
"""Modules that other rooms may import."""
