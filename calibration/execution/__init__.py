"""One run of a configuration on this machine: model loaded, memory capped, passes timed."""

DOOR = (
    "device",
    "engines",
    "loaded_model",
    "memory_cap",
    "run",
    "run_record",
)
"""Modules that other rooms may import."""
