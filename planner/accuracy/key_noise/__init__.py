"""Noise foreseen from a model's own key biases and norms, or measured in its attention.

key_ranges       tables of what each format makes of a model's keys; those that ship
key_simulation   a table from biases and norms
checkpoint_keys  biases and norms from safetensors or a GGUF file
hub_keys         the same from a hub repository, by ranges
attention_noise  what formats make of keys and values, as a calibration measured it
at_hand          the table of whatever checkpoint lies on this machine, kept once made
"""
