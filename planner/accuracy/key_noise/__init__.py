"""Key noise foreseen from a checkpoint: its key biases and norms, before anything is run."""
