"""What the tables are known for, beside what the fit makes of it: a check a person can read."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...planner.accuracy.predictor import Predictor
from ..fit.accuracy_rows import AccuracyRow
from ..fit.cross_validation import predict_rows
from ..fit.mixed_effects import KnownModel

Key = Mapping[str, object]
FACTS: tuple[tuple[str, Key], ...] = (
    (
        "Qwen2.5-7B, int4 keys and values per token, GSM8K",
        {"model": "qwen2.5-7b", "task": "gsm8k_fewshot_cot_avg", "k_bits": 4.0},
    ),
    (
        "Qwen2.5-7B, the same with int8, GSM8K",
        {"model": "qwen2.5-7b", "task": "gsm8k_fewshot_cot_avg", "k_bits": 8.0},
    ),
    (
        "Qwen2.5-7B, int4 groups of 64 and a window of 128, action routing",
        {"model": "qwen2.5-7b", "task": "120-case action routing (exact match)"},
    ),
    (
        "Mistral-7B-v0.3, the same run",
        {"model": "mistral-7b-v0.3", "task": "120-case action routing (exact match)"},
    ),
    (
        "Qwen2.5-7B, rotated 3-bit keys, perplexity",
        {"model": "qwen2.5-7b", "k_bits": 3.0, "v_bits": 16.0},
    ),
    (
        "Qwen2.5-7B, int4 keys per channel, perplexity",
        {"model": "qwen2.5-7b", "granularity": "per-channel"},
    ),
    (
        "Llama-3.1-8B, K4V2 groups of 64, GSM8K",
        {"model": "llama-3.1-8b", "k_bits": 4.0, "v_bits": 2.0, "group_size": 64}
        | {"granularity": "per-token", "rotate_k": False, "rotate_v": False, "residual": 0},
    ),
    (
        "Llama-3.1-8B, K2V4 groups of 64, GSM8K",
        {"model": "llama-3.1-8b", "k_bits": 2.0, "v_bits": 4.0, "group_size": 64}
        | {"granularity": "per-token", "rotate_k": False, "rotate_v": False, "residual": 0},
    ),
    (
        "Llama-3.1-8B, the same with rotated keys and values",
        {"model": "llama-3.1-8b", "k_bits": 2.0, "v_bits": 4.0, "group_size": 64}
        | {"granularity": "per-token", "rotate_k": True, "rotate_v": True},
    ),
    (
        "Mistral-7B-v0.2, KIVI 4-bit, LongBench (mean of 15 tasks)",
        {"model": "mistral-7b-v0.2", "k_bits": 4.0, "kind": "retrieval"},
    ),
    (
        "Mistral-7B-v0.2, KIVI 2-bit, LongBench PassageRetrieval",
        {"model": "mistral-7b-v0.2", "k_bits": 2.0, "task": "longbench_PassageRetrieval"},
    ),
    (
        "Qwen3-32B, int4 per token, GPQA",
        {"model": "qwen3-32b", "k_bits": 4.0, "task": "GPQA", "protected_layers": ()},
    ),
    (
        "Qwen3-32B, the same with layer 0 kept in 16 bits",
        {"model": "qwen3-32b", "k_bits": 4.0, "task": "GPQA", "protected_layers": (0,)},
    ),
    (
        "Qwen2-7B, 4-bit weights (AWQ, GPTQ), IFEval",
        {"model": "qwen2-7b", "task": "ifeval", "weight_bits": 4.0},
    ),
)


def known_results_table(
    predictor: Predictor, rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> tuple[list[str], list[list[object]]]:
    """(header, lines): published retention, the fitted one and its interval, fact by fact."""
    lines: list[list[object]] = []
    for words, key in FACTS:
        matching = [r for r in rows if all(getattr(r, n) == v for n, v in key.items())]
        model = models[matching[0].model]
        effects = predictor.models.known(model.key, model.features)
        low, middle, high = (
            float(predict_rows(predictor, effects, matching, models, z).mean())
            for z in (effects.z, 0.0, -effects.z)
        )
        published = float(np.mean([r.retention for r in matching]))
        lines.append([words, published, middle, f"{low:.3f} to {high:.3f}"])
    return ["fact", "published", "fitted", "90 % interval"], lines
