"""Several sequences of unlike length in one cache: they join and leave while others go on."""

DOOR = ("queue",)
"""Modules that other rooms may import."""
