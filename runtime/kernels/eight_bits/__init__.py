"""Attention of prompts' chunks in 8 bits on Hopper: staging, the kernel, and what both compute."""
