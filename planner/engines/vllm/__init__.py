"""vLLM: whether it starts, and how many tokens its cache then holds. Rules of vLLM 0.26.0.

Not yet an engine of `plan --engine`: the questions are asked from Python (docs/vllm.md).
"""

VERSION = "0.26.0"
"""The release whose source the rules of this folder were read from, and which was run."""
