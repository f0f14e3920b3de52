"""The cache that a small model with real weights fills, where its code reads values as it runs."""

from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

_STATES = ("recurrent_states", "conv1d_state")  # RecurrentGemma's


def fill_real_cache(config: Any, tokens: int, batch: int = 1) -> Any:
    """The caches and states after one prompt of `tokens` tokens."""
    dtype = config.dtype or torch.bfloat16
    model_class = getattr(transformers, (config.architectures or [""])[0], None)
    if model_class is None:
        names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        model_class = getattr(transformers, names[config.model_type])
    model = model_class._from_config(config, dtype=dtype).eval()
    cache = transformers.DynamicCache(config=config)
    ids = torch.zeros((batch, tokens), dtype=torch.long)
    with torch.no_grad():
        model(input_ids=ids, use_cache=True, past_key_values=cache)
    return [
        cache,
        *(getattr(module, name, None) for module in model.modules() for name in _STATES),
    ]
