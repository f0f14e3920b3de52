"""A spec beside transformers' model of the same config, made without memory (the meta device)."""

import warnings
from collections import Counter
from typing import Any

import torch

from kvpareto.calibration.config_check.meta_model import (
    cache_bytes,
    fill_cache,
    hf_config,
    instantiate,
)
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload
from tests.support.real_cache import fill_real_cache

# Below and above every window, block and chunk of the small configs.
LENGTHS = (5, 44)
BATCH = 2
# Families whose code reads values while it runs, which the meta device has not.
READ_VALUES = {"recurrent_gemma", "jetmoe", "biogpt", "qwen4_exp_text"}


def groups_of(spec: ModelSpec) -> dict[tuple[str, tuple[int, ...]], int]:
    counts: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for group in spec.tensors:
        counts[group.name, group.shape] += group.count
    return dict(counts)


def build(config: dict[str, Any]) -> Any:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own deprecations
        return instantiate(hf_config(dict(config)))


def assert_caches_match(model: Any, spec: ModelSpec) -> None:
    for tokens in LENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if model.config.model_type in READ_VALUES:
                held = cache_bytes(fill_real_cache(model.config, tokens, BATCH))
            else:
                held = cache_bytes(fill_cache(model, tokens, BATCH))
        planned = kv_bytes(spec, Configuration(), Workload(tokens, 0, BATCH), TRANSFORMERS)
        assert planned.total == held, f"{tokens} tokens"
