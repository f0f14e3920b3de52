"""The planner's reading of config.json files, held to the models that transformers makes."""

DOOR = ("check",)
"""Modules that other rooms may import."""
