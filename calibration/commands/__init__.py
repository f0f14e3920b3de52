"""The command lines of `calibrate`, `verify` and `profiles`: options parsed, work called, output
shown."""

DOOR = ("shared_options",)
"""Modules that other rooms may import."""
