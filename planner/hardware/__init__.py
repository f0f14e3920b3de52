"""GPUs as their makers and drivers state them, and what was measured on this machine."""
