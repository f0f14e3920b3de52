"""From measured rows to coefficients: accuracy here, times and memory of a GPU in hardware/."""

DOOR = (
    "accuracy_rows",
    "calibrated_noise",
    "coefficients",
    "cross_validation",
    "hardware.engine_runs",
    "hardware.gpu",
    "hardware.latency",
    "interval_widths",
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
