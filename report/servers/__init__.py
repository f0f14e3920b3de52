"""What a plan for a server says beside its numbers: flags, cards, containers, other engines."""

DOOR = (
    "own_runtime",
    "serving",
)
"""Modules that other rooms may import."""
