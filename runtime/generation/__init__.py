"""Prefill, decode and sampling over a loaded model; text in and out."""

DOOR = (
    "check_call",
    "constants",
    "decode",
    "last_layer",
    "piecewise_graphs",
    "prefill",
    "sampling",
    "teacher_forcing",
    "tokenization",
    "tokenizer",
)
"""Modules that other rooms may import."""
