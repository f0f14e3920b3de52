"""From a config.json to a ModelSpec: shapes of every tensor, layer and cache."""

DOOR = (
    "bundled",
    "checkpoint_tensors",
    "finite_json",
    "gguf.files",
    "gguf.header",
    "gguf.read_gguf",
    "hub",
    "hub_ranges",
    "model_name",
    "other_folders",
    "protected",
    "quantization.original",
    "quantization.section",
    "read_config",
    "spec",
    "spec_key",
    "token_work",
    "untrusted_json",
)
"""Modules that other rooms may import."""
