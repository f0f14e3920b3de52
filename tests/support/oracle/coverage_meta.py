"""Every model type of transformers' mappings, and what the planner makes of it.

For each type of the causal and image-text mappings: a config.json of the class's own defaults with
few layers (widths, ratios and patterns kept), the truth about it from transformers on the meta
device, and the planner's answer classed: `exact`, `bounded` (the truth lies within the bounds the
answer states), `refused` (an error that names the type or a key), `unchecked` (read, but the
installed libraries cannot make the class from its defaults), or `WRONG`.
"""

import contextlib
import copy
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

from transformers.models.auto import modeling_auto

from kvpareto.calibration.config_check.meta_model import (
    cache_bytes,
    fill_cache,
    hf_config,
    instantiate,
    parameter_groups,
)
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadConfig
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload

MAPPINGS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "image": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
}
EXACT, BOUNDED, REFUSED, UNCHECKED, WRONG = "exact", "bounded", "refused", "unchecked", "WRONG"
LENGTHS = (5, 44)
# Where classes keep their number of layers, and how many of them the small config keeps.
_DEPTHS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "depth",
    "encoder_layers",
    "decoder_layers",
)
# Sections that the defaults leave out although published files have them, and values without which
# transformers does not make its class.
_QSA = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 64,
    "indexer_compress_ratio": 16,
    "ple_layer_ids": [2],
    "ngram_vocab_size_base": 1000,
    "eos_token_id": 1,
}
_DRAFT = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_ROPES = {"full_attention": _ROPE, "sliding_attention": _ROPE}
_ADDED: dict[str, dict[str, Any]] = {
    "qwen4_exp_text": _QSA,
    "qwen4_exp": {"text_config": _QSA},
    "gemma4_unified": {"vision_config": {}, "audio_config": {}},
    "hunyuan_vl": {"text_config": {"head_dim": 128}},
    "dots1": {
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "deepseek_v2": {"num_experts_per_tok": 6},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128, "num_key_value_heads": 8},
    "nemotron": {"num_key_value_heads": 8},
    "aya_vision": {"vision_config": {"num_attention_heads": 16}},
    "deepseek_ocr2": {
        "text_config": {
            "num_hidden_layers": 4,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "num_experts_per_tok": 6,
        }
    },
    "emu3": {"vocabulary_map": {"<image>": 4}},
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "granite4_vision": {"deepstack_layer_map": [[-1, 0]], "spatial_target_layers": [1]},
    "gemma4_assistant": {"text_config": _DRAFT},
    "cohere_compass_text": {"rope_parameters": _ROPES},
    "cohere_compass": {"text_config": {"rope_parameters": _ROPES}},
    "hrm_text": {"num_hidden_layers": 2},
    "zamba": {
        "num_hidden_layers": 5,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid"],
    },
}
# Windows, which the small config makes short enough to fill.
_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size")
_WINDOW = 21
# Types whose number of layers is another's product, small as given above.
_AS_ADDED = frozenset({"hrm_text", "zamba"})
_KEPT = 4
_MOST = 12


@dataclass(frozen=True)
class Answer:
    """How the planner's reading of one config stands to the truth, and why."""

    verdict: str
    reason: str = ""


def all_types() -> list[tuple[str, str]]:
    """(mapping, model type) of every entry of both mappings."""
    return [(mapping, kind) for mapping, names in MAPPINGS.items() for kind in names]


def class_of(mapping: str, kind: str) -> str:
    name = MAPPINGS[mapping][kind]
    return name if isinstance(name, str) else name[0]


def default_config(mapping: str, kind: str) -> dict[str, Any]:
    """config.json of the class's own defaults, `architectures` naming the mapping's class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = {"model_type": kind, **copy.deepcopy(_ADDED.get(kind, {}))}
        written: dict[str, Any] = hf_config(asked).to_dict()
    written["architectures"] = [class_of(mapping, kind)]
    written["model_type"] = kind
    written.setdefault("dtype", None)
    written["dtype"] = written["dtype"] or "bfloat16"
    return written


def small_config(mapping: str, kind: str) -> dict[str, Any]:
    """The default config with few layers in every tower."""
    config = copy.deepcopy(default_config(mapping, kind))
    return config if kind in _AS_ADDED else _few_layers(config)


def _few_layers(section: dict[str, Any]) -> dict[str, Any]:
    depths = {n: section[n] for n in _DEPTHS if _is_count(section.get(n))}
    lists = {k: v for k, v in section.items() if isinstance(v, list)}
    for name, layers in depths.items():
        listed = [v for v in lists.values() if len(v) == layers]
        kept = max([_KEPT, *(_to_every_kind(v) for v in listed)])
        if section.get("num_kv_shared_layers"):
            kept *= 2  # so that the last layers have others of their kinds to share with
        if kept >= layers:
            continue
        section[name] = kept
        for key, value in lists.items():
            if len(value) == layers:
                section[key] = value[:kept]
    if _is_count(section.get("num_kv_shared_layers")):
        section["num_kv_shared_layers"] = 1
    section.pop("hybrid_layer_ids", None)  # Zamba 2's own count of its kinds of layers
    if section.get("zero_expert_num"):  # the class allots them weights, checkpoints have none
        section["zero_expert_num"] = 0
    for name in _WINDOWS:
        if _is_count(section.get(name)):
            section[name] = min(_WINDOW, section[name])
    apart = section.get("per_layer_config")
    if isinstance(apart, dict):
        kept = min(depths.values(), default=0) and section[next(iter(depths))]
        section["per_layer_config"] = {k: v for k, v in apart.items() if int(k) < kept}
    for key, value in section.items():
        if isinstance(value, dict):
            section[key] = _few_layers(value)
    return section


def _to_every_kind(listed: list[Any]) -> int:
    """Layers after which every value of a list has occurred."""
    if not all(isinstance(item, (str, int)) for item in listed) or len(set(listed)) > 4:
        return 0
    return min(_MOST, max(listed.index(item) for item in set(listed)) + 1)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def answer_of(config: dict[str, Any]) -> Answer:
    """Class the planner's answer to a config.json by transformers' own model."""
    try:
        spec = read_model(config, str(config["model_type"]))
    except BadConfig as error:
        return _refusal(config, error)
    model = _instantiated(config)
    if isinstance(model, str):
        return Answer(UNCHECKED, model)
    return judge(spec, model)


def _refusal(config: dict[str, Any], error: BadConfig) -> Answer:
    """Whether a refusal names the type: one that blames a published default is wrong."""
    named = str(config["model_type"]) in error.message
    return Answer(REFUSED if named else WRONG, f"refused: {error.message}")


def _instantiated(config: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return instantiate(hf_config(copy.deepcopy(config)))
    except Exception as error:  # whatever keeps transformers from making it is the finding
        return f"{type(error).__name__}: {error}"[:120]


def judge(spec: ModelSpec, model: Any) -> Answer:
    """Class a ModelSpec by the model it describes."""
    mine: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for group in spec.tensors:
        mine[group.name, group.shape] += group.count
    truth = parameter_groups(model)
    total = sum(p.numel() for p in model.parameters())
    by_caches = [_cache_difference(spec, model, tokens) for tokens in LENGTHS]
    apart = [
        f"{name} {shape} {mine.get((name, shape), 0)} not {truth.get((name, shape), 0)}"
        for name, shape in sorted({*mine, *truth})
        if mine.get((name, shape), 0) != truth.get((name, shape), 0)
    ]
    wrong_cache = [found for found in by_caches if found]
    if not spec.bounds:
        if apart:
            return Answer(WRONG, f"{spec.parameters:,} not {total:,}: {'; '.join(apart)}")
        if wrong_cache:
            return Answer(WRONG, wrong_cache[0])
        return Answer(EXACT)
    problems = [
        f"{total:,} parameters outside {b.low:,} to {b.high:,}"
        for b in spec.bounds
        if b.quantity == "parameters" and not b.low <= total <= b.high
    ]
    if not any(b.quantity == "parameters" for b in spec.bounds) and apart:
        problems.append(f"{spec.parameters:,} not {total:,}")
    if not any(b.quantity == "kv_bytes_per_token" for b in spec.bounds):
        problems += wrong_cache
    else:
        problems += _growth_outside(spec, model)
    return Answer(WRONG, "; ".join(problems)) if problems else Answer(BOUNDED)


def held_bytes(model: Any, tokens: int) -> int | None:
    """Bytes of the caches after a prompt; None where the model does not run on the meta device."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        return cache_bytes(fill_cache(model, tokens))
    return None


def _cache_difference(spec: ModelSpec, model: Any, tokens: int) -> str:
    held = held_bytes(model, tokens)
    planned = kv_bytes(spec, Configuration(), Workload(tokens, 0), TRANSFORMERS).total
    if held is None or held == planned:
        return ""
    return f"cache of {tokens} tokens: {planned:,} planned, {held:,} held"


def _growth_outside(spec: ModelSpec, model: Any) -> list[str]:
    """Cache bytes at each length that lie outside those of all readings."""
    problems = []
    for tokens in LENGTHS:
        held = held_bytes(model, tokens)
        sizes = [
            kv_bytes(one, Configuration(), Workload(tokens, 0), TRANSFORMERS).total
            for one in (spec, *spec.ends)
        ]
        if held is not None and not min(sizes) <= held <= max(sizes):
            problems.append(f"{held:,} bytes of {tokens} tokens outside {sizes}")
    return problems
