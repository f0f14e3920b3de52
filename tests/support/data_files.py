"""Folders of files that tests read."""

from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
STORIES = DATA / "stories260K-hf"
"""A checkpoint of 260,000 parameters that tells stories, whole and with its tokenizer."""
