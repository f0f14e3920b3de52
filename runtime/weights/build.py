"""Building a transformers model without its weights, and giving every tensor a place later.

The module tree is made on the meta device, quantized layers are put in, and what is left is
allocated (or assigned from a checkpoint) directly on the target device, so that memory never
holds more than the finished model. transformers' own initializer fills what no one assigned:
random weights, and buffers such as RoPE frequencies that checkpoints do not carry.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...planner.errors import BadInput


def read_hf_config(source: Mapping[str, Any] | str | Path, layers: int | None = None) -> Any:
    """A transformers config from a config.json's content, its path, or its folder's path.

    `layers` keeps that many decoder layers only. Raises BadInput for what is unknown.
    """
    from transformers import AutoConfig, PretrainedConfig

    if isinstance(source, Mapping):
        content = dict(source)
    else:
        content, _ = PretrainedConfig.get_config_dict(str(source))
    if layers is not None:
        content = _shortened(content, layers)
    model_type = content.pop("model_type", None)
    try:
        return AutoConfig.for_model(model_type, **content)
    except (ValueError, KeyError) as error:
        raise BadInput(
            f"transformers cannot build a {model_type!r} model: {error}",
            "compare with the model's published config.json",
        ) from None


def _shortened(content: Mapping[str, Any], layers: int) -> dict[str, Any]:
    short = dict(content)
    if isinstance(short.get("text_config"), Mapping):
        short["text_config"] = _shortened(short["text_config"], layers)
    if "num_hidden_layers" in short:
        short["num_hidden_layers"] = layers
    if isinstance(short.get("layer_types"), list):
        short["layer_types"] = short["layer_types"][:layers]
    return short


def meta_model(config: Any, dtype: torch.dtype, attention: str | None = None) -> torch.nn.Module:
    """The causal LM of `config` with every tensor on the meta device.

    `attention` is transformers' `attn_implementation`.
    """
    from transformers import AutoModelForCausalLM

    options = {} if attention is None else {"attn_implementation": attention}
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=dtype, trust_remote_code=False, **options
            )
    except ValueError as error:
        raise BadInput(
            f"transformers has no causal LM for {config.model_type!r}: {str(error)[:120]}",
            "choose a text model",
        ) from None
    return model.eval().requires_grad_(False)


def assign(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give parameters and buffers their values, by dotted name; tied parameters stay tied."""
    owners = _owners(model)
    for name, tensor in tensors.items():
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        old = module._parameters.get(leaf)
        if old is None:
            module._buffers[leaf] = tensor
            continue
        if old.shape != tensor.shape:
            raise BadInput(
                f"{name} has shape {list(tensor.shape)}, the model wants {list(old.shape)}",
                "config.json and the weights do not belong together",
            )
        new = torch.nn.Parameter(tensor.to(old.dtype), requires_grad=False)
        new._is_hf_initialized = True  # type: ignore[attr-defined]
        for owner, key in owners[id(old)]:
            owner._parameters[key] = new


def _owners(model: torch.nn.Module) -> dict[int, list[tuple[torch.nn.Module, str]]]:
    """Every place of each parameter, so that tied ones are replaced together."""
    owners = defaultdict(list)
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                owners[id(parameter)].append((module, key))
    return owners


def unassigned(model: torch.nn.Module) -> list[str]:
    """Names of the parameters that are still on the meta device."""
    return [name for name, parameter in model.named_parameters() if parameter.is_meta]


def materialize(model: torch.nn.Module, device: torch.device | str, seed: int = 0) -> None:
    """Allocate what is still on the meta device, and initialize it as transformers does."""
    for places in _owners(model).values():
        module, key = places[0]
        old = module._parameters[key]
        if old is None or not old.is_meta:
            continue
        new = torch.nn.Parameter(torch.empty_like(old, device=device), requires_grad=False)
        for owner, name in places:
            owner._parameters[name] = new
    for module in model.modules():
        for key, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[key] = torch.empty_like(buffer, device=device)
    target = torch.device(device)
    with torch.random.fork_rng([target] if target.type == "cuda" else []):
        torch.manual_seed(seed)
        model.initialize_weights()  # type: ignore[operator]
