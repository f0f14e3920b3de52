"""What a configuration costs in accuracy, measured: task scores, divergence, layer by layer."""
