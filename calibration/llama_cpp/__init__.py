"""llama.cpp run for real: its own numbers read, and held against what is planned.

Needs `xllamacpp` (`pip install "kvpareto[llamacpp]"`) or a llama-server binary; neither torch nor a
GPU. The planner's side is planner/engines/llama_cpp/.
"""

DOOR = ("verify",)
"""Modules that other rooms may import."""
