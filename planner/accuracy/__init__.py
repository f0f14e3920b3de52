"""Predicted retention of a configuration, with an interval and its provenance."""
