"""Measured rows on disk: appended with fsync, locked, exported, never edited."""

DOOR = (
    "environment",
    "export",
    "profile_files",
    "receipt_rows",
    "record_file",
)
"""Modules that other rooms may import."""
