"""Sixty questions and what is recommended: the golden table, made and compared.

    PYTHONPATH=.. python tests/support/recommendations.py            # the table, as it is now
    PYTHONPATH=.. python tests/support/recommendations.py --write    # put it into tests/data

A change that moves an answer rewrites the table and says why in its message; the diff of the file
is what a reviewer reads.
"""

import json
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.recommend import recommend
from kvpareto.planner.search.request import Request
from kvpareto.planner.units import parse_bytes, parse_tokens
from kvpareto.planner.workload import Workload

FILE = Path(__file__).parents[1] / "data" / "recommendations.jsonl"
OUTPUT = 512
ASKED = """
Qwen/Qwen2.5-7B-Instruct
    12GB 32k
    8GB 16k
    24GB 32000 4090
Qwen/Qwen2.5-14B-Instruct
    16GB 8k
    16GB 32000
    24GB 32000 4090
Qwen/Qwen2.5-32B-Instruct
    24GB 8k 4090
    32GB 32000
    80GB 32000 H200
Qwen/Qwen3-0.6B
    2GB 4k
    4GB 32k
    6GB 32k
Qwen/Qwen3-8B
    12GB 32k
    8GB 8k
    24GB 32k 4090
Qwen/Qwen3-14B
    12GB 16k
    16GB 32k
    24GB 32k 4090
Qwen/Qwen3-32B
    24GB 16k 4090
    40GB 32k
    80GB 32k H200
Qwen/Qwen3-30B-A3B
    20GB 16k
    24GB 32k
    48GB 32k
meta-llama/Llama-3.2-1B-Instruct
    2GB 4k
    4GB 32k
    8GB 120k
meta-llama/Llama-3.2-3B-Instruct
    4GB 8k
    8GB 32k
    12GB 120k
meta-llama/Llama-3.1-8B-Instruct
    8GB 16k
    12GB 32k
    24GB 120k 4090
meta-llama/Llama-3.1-70B-Instruct
    48GB 32k
    80GB 120k H200
    140GB 32k H200
mistralai/Mistral-7B-Instruct-v0.3
    6GB 8k
    12GB 32000
    24GB 32000 4090
microsoft/phi-4
    12GB 8k
    16GB 15k
    24GB 15k 4090
microsoft/Phi-3.5-mini-instruct
    6GB 16k
    8GB 32k
    24GB 120k 4090
google/gemma-2-9b-it
    8GB 4k
    12GB 7k
    24GB 7k 4090
google/gemma-3-12b-it
    12GB 32k
    16GB 120k
    24GB 32k 4090
google/gemma-3-27b-it
    20GB 16k
    24GB 32k 4090
    48GB 120k
openai/gpt-oss-20b
    14GB 8k
    16GB 32k
    24GB 120k 4090
deepseek-ai/DeepSeek-V2-Lite-Chat
    12GB 8k
    16GB 32k
    40GB 32k
"""
"""Models; below each: budget, context, and a GPU where times matter."""


@dataclass(frozen=True)
class Question:
    model: str
    budget: str
    context: str
    gpu: str | None


def questions() -> list[Question]:
    found, model = [], ""
    for line in ASKED.strip().splitlines():
        if not line.startswith(" "):
            model = line
            continue
        budget, context, *gpu = line.split()
        found.append(Question(model, budget, context, gpu[0] if gpu else None))
    return found


def answer(question: Question) -> dict[str, Any]:
    """What is recommended, or why nothing is; percentages as a person reads them."""
    gpu = find_gpu(question.gpu) if question.gpu is not None else None
    request = Request(
        _load(question.model),
        Workload(parse_tokens(question.context), OUTPUT),
        KVPARETO,
        parse_bytes(question.budget),
        gpu,
    )
    try:
        best = recommend(request).recommended
    except NothingFits as error:
        risky = error.details.get("risky")
        return {
            "recommended": None,
            "risky": risky["config"] if risky is not None else None,
            "needs_gb": _gigabytes(error.details["needed_bytes"]),
            "safe_context": error.details.get("safe_context"),
        }
    kept = best.accuracy
    return {
        "recommended": str(best.config),
        "retention": _percent(kept.retention),
        "at_least": _percent(kept.low),
        "task": kept.task,
        "takes_gb": _gigabytes(best.memory.total_high),
    }


def table() -> list[dict[str, Any]]:
    return [asdict(question) | answer(question) for question in questions()]


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


@cache
def _load(model: str) -> ModelSpec:
    return load_model(model, offline=True)


def _percent(share: float) -> float:
    return round(100 * share, 1)


def _gigabytes(size: int | None) -> float | None:
    return round(size / 1e9, 2) if size is not None else None


def main() -> None:
    lines = [json.dumps(line) for line in table()]
    if "--write" in sys.argv[1:]:
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"wrote {len(lines)} answers to {FILE}")
        return
    print("\n".join(lines))


if __name__ == "__main__":
    main()
