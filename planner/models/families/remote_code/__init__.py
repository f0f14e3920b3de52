"""Families whose code comes with their checkpoints, read by hand."""
