"""vLLM run for real: its own numbers read, and held against what is planned.

Needs vLLM and its GPU for a run, nothing of either for the rest. The planner's side is
planner/engines/vllm/.
"""

DOOR = (
    "row_server",
    "start",
    "verify",
)
"""Modules that other rooms may import."""
