"""Products of few rows in CUDA C++: a kernel for each range of rows, and its host side."""
