"""From measured rows to coefficients: accuracy, latency, and the GPU at hand."""

DOOR = (
    "accuracy_rows",
    "calibrated_noise",
    "coefficients",
    "cross_validation",
    "engine_runs",
    "gpu",
    "interval_widths",
    "latency",
    "least_squares",
    "leave_out",
    "measured_models",
    "mixed_effects",
    "profile",
    "published",
    "published_more",
    "published_sources",
    "regression",
)
"""Modules that other rooms may import."""
