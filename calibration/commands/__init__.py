"""The command lines of `calibrate`, `verify` and `profiles`: options parsed, work called, output
shown."""

DOOR = (
    "calibrate",
    "profiles",
    "run",
    "shared_options",
    "verify",
)
"""Modules that other rooms may import."""
