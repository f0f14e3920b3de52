"""A plan for vLLM as tests ask for it, and its first card."""

from typing import Any

from kvpareto import api
from kvpareto.planner.engines import find_engine

VLLM = find_engine("vllm")
QWEN8, LLAMA8 = "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct"
LLAMA70 = "meta-llama/Llama-3.1-70B-Instruct"


def plan(model: str, **words: Any) -> dict[str, Any]:
    return dict(api.plan(model, engine="vllm", offline=True, **words))


def card(found: dict[str, Any]) -> dict[str, Any]:
    return found["recommended"]["serving"]["cards"][0]
