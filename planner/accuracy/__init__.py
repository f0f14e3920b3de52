"""Predicted retention of a configuration, with an interval and its provenance."""

DOOR = (
    "calibrated_noise",
    "calibration_files.check",
    "calibration_files.values",
    "calibrations",
    "coded_noise",
    "format_arrays",
    "formula",
    "interactions",
    "interval",
    "key_noise.at_hand",
    "key_noise.attention_noise",
    "key_noise.checkpoint_keys",
    "key_noise.key_ranges",
    "key_noise.key_simulation",
    "measured_configs",
    "model_features",
    "model_sensitivity",
    "named_noise",
    "predict",
    "prediction",
    "predictor",
    "retention",
    "shipped_measurements",
    "task_kinds",
)
"""Modules that other rooms may import."""
