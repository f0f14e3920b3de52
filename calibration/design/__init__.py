"""Which configurations a calibration measures next, and how long that will take."""

DOOR = (
    "campaign",
    "candidates",
    "findings",
    "fit_time",
    "next_run",
    "options",
    "telling_run",
    "time_estimate",
    "user_text",
    "without_fit",
)
"""Modules that other rooms may import."""
