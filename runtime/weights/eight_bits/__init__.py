"""Products of prompts in 8 bits: rows in e4m3 times codes of 4-bit weights, which it holds."""
