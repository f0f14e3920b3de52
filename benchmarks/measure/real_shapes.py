"""Models at their real shapes that are built with random weights, some of them not published so.

The runtime refuses recurrent layers, so of the Granite 4 hybrids there are two relatives that it
runs: `granite-4.0-micro-like`, dense, 40 heads of 64 channels; and `granite-4.0-tiny-like`, the
hybrid's experts and widths with attention throughout. gpt-oss-20b is run in 16 bits, as its
experts' 4-bit floats are not what the runtime reads.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec

_GRANITE: dict[str, Any] = {
    "model_type": "granitemoehybrid",
    "hidden_size": 2560,
    "num_hidden_layers": 40,
    "layer_types": ["attention"] * 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "shared_intermediate_size": 8192,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "mamba_n_heads": 80,
    "mamba_d_head": 64,
    "position_embedding_type": "rope",
    "vocab_size": 100352,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "embedding_multiplier": 12,
    "attention_multiplier": 0.015625,
    "residual_multiplier": 0.22,
    "logits_scaling": 10,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e7,
    "dtype": "bfloat16",
}
_TINY = {
    "hidden_size": 1536,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "intermediate_size": 512,
    "shared_intermediate_size": 1024,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "mamba_n_heads": 48,
}
MADE_UP: dict[str, dict[str, Any]] = {
    "granite-4.0-micro-like": _GRANITE,
    "granite-4.0-tiny-like": _GRANITE | _TINY,
}
UNPACKED = {"gpt-oss-20b-16bit": "openai/gpt-oss-20b"}  # published in 4-bit floats; run in 16 bits


def architecture(model: str) -> dict[str, Any] | None:
    """The config of a model that is not bundled as it is run."""
    if model in MADE_UP:
        return MADE_UP[model]
    if model in UNPACKED:
        config = dict(load_config(UNPACKED[model], offline=True).config)
        config.pop("quantization_config", None)
        return config
    return None


@cache
def spec_of(model: str) -> ModelSpec:
    """What is planned and run under a model's name."""
    config = architecture(model)
    return load_model(model, offline=True) if config is None else read_model(config, model)


@contextmanager
def sources(models: Iterable[str]) -> Iterator[dict[str, str]]:
    """What each model is loaded from: its id, or a folder with the config it is run with."""
    with tempfile.TemporaryDirectory() as folder:
        source = {}
        for model in dict.fromkeys(models):
            config = architecture(model)
            if config is None:
                source[model] = model
                continue
            path = Path(folder) / model
            path.mkdir(parents=True)
            (path / "config.json").write_text(json.dumps(config))
            source[model] = str(path)
        yield source
