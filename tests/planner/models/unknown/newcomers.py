"""Configs of types that nobody here knew: published files, and a plain one."""

import copy
import json
from pathlib import Path
from typing import Any

from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import KVBytes, kv_bytes
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload

FILES = Path(__file__).parents[3] / "data" / "unknown_types"
BF16 = Configuration()
LONG = 131_072


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def renamed(config: dict[str, Any]) -> dict[str, Any]:
    """The file under names of types and classes that nobody will ever know."""
    found = copy.deepcopy(config)
    for section in (found, *(x for x in found.values() if isinstance(x, dict))):
        if "model_type" in section:
            section["model_type"] = "newcomer"
        if section.get("architectures"):
            section["architectures"] = ["NewcomerForCausalLM"]
    return found


def of(spec: ModelSpec) -> list[KVBytes]:
    asked = BF16, Workload(LONG, 0), TRANSFORMERS
    return [kv_bytes(one, *asked) for one in (spec, *spec.ends)]


PLAIN: dict[str, Any] = {
    "model_type": "newcomer",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
