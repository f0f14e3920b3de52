"""Predicted retention of a configuration, with an interval and its provenance."""

DOOR = (
    "calibrated_noise",
    "calibrations",
    "checkpoint_keys",
    "formula",
    "interactions",
    "interval",
    "key_ranges",
    "key_simulation",
    "measured_configs",
    "model_sensitivity",
    "predict",
    "predictor",
    "profile_check",
    "profile_values",
    "retention",
    "task_kinds",
)
"""Modules that other rooms may import."""
