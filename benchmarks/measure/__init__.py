"""Whole runs measured on one GPU by three designs: `python -m benchmarks.measure`."""
