"""The truth about a model's tensors and caches: transformers itself, on the meta device.

A model is instantiated without memory, so that its parameters can be listed group by group,
and run over prompts of two lengths, so that its caches can be weighed. Mixture-of-experts
layers answer zeros while it runs, because which expert is used depends on data.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

import torch
import torch.fx.experimental._config as fx_config
import transformers
from transformers.models.auto import modeling_auto

Groups = dict[tuple[str, tuple[int, ...]], int]

_INDEX = re.compile(r"\.\d+(?=\.|$)")
_AUTOMATIC = (
    (transformers.AutoModelForCausalLM, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    (
        transformers.AutoModelForImageTextToText,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    ),
    (transformers.AutoModelForMultimodalLM, modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES),
)
_BOOKKEEPING = {"_sliding_window_tensor", "cumulative_length", "indexer_cumulative_length"}


def hf_config(config: Mapping[str, Any]) -> Any:
    """transformers' own configuration object for a config.json."""
    plain = {k: v for k, v in config.items() if k not in ("quantization_config", "auto_map")}
    return transformers.AutoConfig.for_model(plain.pop("model_type"), **plain)


def instantiate(config: Any) -> Any:
    """The model on the meta device, in evaluation mode, in the checkpoint's dtype.

    Its class is the one that `architectures` names, else what the first automatic class that
    knows the config makes of it.
    """
    dtype = config.dtype or config.get_text_config().dtype or torch.bfloat16
    with torch.device("meta"):
        for name in config.architectures or ():
            if hasattr(transformers, name):
                model_class = getattr(transformers, name)
                return model_class._from_config(_own(model_class, config), dtype=dtype).eval()
        for auto, names in _AUTOMATIC:
            if config.model_type in names:
                return auto.from_config(config, dtype=dtype).eval()
    raise LookupError(f"transformers has no generative model for {config.model_type}")


def _own(model_class: Any, config: Any) -> Any:
    """The section a class is made from: a text model's class takes the text section alone."""
    text = config.get_text_config()
    takes_text = model_class.config_class in (type(text), type(text).__base__)
    return text if takes_text and not isinstance(config, model_class.config_class) else config


def parameter_groups(model: Any) -> Groups:
    """(name with indices as `*`, shape) -> number of such parameters; tied ones once."""
    counts: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for name, parameter in model.named_parameters():
        counts[_INDEX.sub(".*", name), tuple(parameter.shape)] += 1
    return dict(counts)


def fill_cache(model: Any, tokens: int, batch: int = 1) -> Any:
    """The cache after one prompt of `tokens` tokens."""
    _still_experts(model)
    for module in model.modules():
        # It reads the prompt's values to warn about padding, and there are none here.
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            module.warn_if_padding_and_no_attention_mask = lambda *_: None
    ids = torch.zeros((batch, tokens), dtype=torch.long, device="meta")
    arguments: dict[str, Any] = {"input_ids": ids, "use_cache": True}
    if any(hasattr(m, "get_rope_index") for m in model.modules()):
        arguments["position_ids"] = torch.zeros((3, batch, tokens), dtype=torch.long, device="meta")
    # It reads positions to find sequences packed into one row, and there are none here.
    unpacked = patch("transformers.masking_utils.find_packed_sequence_indices", lambda *_: None)
    # Sparse attention lists what a mask lets through: on the meta device, everything.
    listed = patch.object(fx_config, "meta_nonzero_assume_all_nonzero", True, create=True)
    with unpacked, listed, torch.no_grad(), torch.device("meta"):
        output = model(**arguments)
    for name in ("cache", "past_key_values", "cache_params", "state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    raise LookupError("the model returned no cache")


def cache_bytes(cache: Any) -> int:
    """Bytes of every tensor a cache holds, each once, views at their own size."""
    held = {id(t): t.numel() * t.element_size() for t in list(cache_tensors(cache))}
    return sum(held.values())


def cache_tensors(cache: Any) -> Iterator[torch.Tensor]:
    """Every tensor a cache holds, bookkeeping scalars left out."""
    if isinstance(cache, torch.Tensor):
        yield cache
    elif isinstance(cache, (list, tuple)):
        for item in cache:
            yield from cache_tensors(item)
    elif isinstance(cache, dict):
        yield from cache_tensors(list(cache.values()))
    elif hasattr(cache, "__dict__"):
        held = {k: v for k, v in vars(cache).items() if k not in _BOOKKEEPING}
        yield from cache_tensors([v for k, v in held.items() if not isinstance(v, type)])


def _still_experts(model: Any) -> None:
    def zeros(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros_like(hidden)

    for module in model.modules():
        if type(module).__name__.endswith("Experts"):
            module.forward = zeros
