"""Bytes counted while transformers runs on the meta device: what the memory formulas must meet."""
