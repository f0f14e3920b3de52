"""Tables and checks that hold the predictions to shipped measurements, for docs and tests."""

DOOR = ("left_out_errors",)
"""Modules that other rooms may import."""
