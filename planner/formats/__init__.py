"""The grammar of configurations, and the bytes of KV and weight formats. Knows no model."""

DOOR = (
    "code_tables",
    "configuration",
    "dtypes",
    "gguf_mix",
    "gguf_types",
    "kv_format",
    "named",
    "space",
    "weight_format",
    "without_effect",
)
"""Modules that other rooms may import."""
