"""Products of few rows in CUDA C++: row.cu, sweep.cu, tile.cu, ring.cu and their host sides."""
