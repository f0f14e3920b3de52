"""Which configurations a calibration measures next, and how long that will take."""

DOOR = (
    "campaign",
    "candidates",
    "findings",
    "next_run",
    "options",
    "telling_run",
    "without_fit",
    "time_estimate",
    "user_text",
)
"""Modules that other rooms may import."""
