"""Text in the columns that there are: lines folded, tables or what stands for them, `--help`."""

DOOR = "folding", "help_pages", "tables"
"""Modules that other rooms may import."""
