"""Measured rows on disk: appended with fsync, locked, exported, never edited."""
