"""How a checkpoint is stored: quantization methods, and which modules they cover."""
