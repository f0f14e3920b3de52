"""From measured rows to coefficients: accuracy, latency, and the GPU at hand."""
