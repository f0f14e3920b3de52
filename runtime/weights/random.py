"""Models of the right shapes with random weights, built in their final format on the device.

Memory and latency do not depend on what the weights are, so an 8B or a 30B model can be
measured without downloading it. Packed layers get random codes directly: nothing is ever held
in 16 bits first, and the peak while building is the finished model.
"""

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch

from ...planner.formats.weight_format import W4
from .build import materialize, meta_model, read_hf_config
from .experts import QuantizedExperts, packed_experts
from .layout import BLOCK4, Packed, Packed4, Packed8
from .linear import W4Linear, W8Linear
from .quantize_modules import Target, part_of, spec_of, targets, workspace_for
from .workspace import Workspace

STD = 0.02  # of a weight: transformers' own initializer for these models
_CODE_STD4 = sqrt((16**2 - 1) / 12)
_CODE_STD8 = sqrt((256**2 - 1) / 12)


def random_model(
    config: Mapping[str, Any] | str | Path,
    weight_bits: int = 16,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
    layers: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    attention: str | None = None,
) -> torch.nn.Module:
    """The causal LM of `config` (a config.json's content or path) with random weights.

    `layers` builds only that many decoder layers; `attention` is transformers'
    `attn_implementation`. Raises BadInput for a model that transformers or the planner
    cannot describe.
    """
    hf_config = read_hf_config(config, layers)
    if hasattr(hf_config, "quantization_config"):
        del hf_config.quantization_config
    model = meta_model(hf_config, dtype, attention)
    if weight_bits < 16:
        _pack(model, weight_bits, device, seed, dtype)
    materialize(model, device, seed)
    return model


def _pack(
    model: torch.nn.Module,
    weight_bits: int,
    device: torch.device | str,
    seed: int,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator(device).manual_seed(seed)
    chosen_targets = targets(model, weight_bits, spec_of(model))
    workspace = workspace_for(model, weight_bits, chosen_targets, device)
    for target in chosen_targets:
        module = target.module
        if not isinstance(module, torch.nn.Linear):
            target.put(_experts(target, weight_bits, workspace, generator, dtype))
            continue
        bias = None
        if module.bias is not None:
            bias = torch.zeros(module.out_features, dtype=dtype, device=device)
        out, inputs = target.matrices["weight"]
        if weight_bits == 4:
            target.put(W4Linear(random4((), inputs, out, generator), bias, workspace, inputs))
        else:
            target.put(W8Linear(random8((), inputs, out, generator), bias, workspace))


def _experts(
    target: Target,
    weight_bits: int,
    workspace: Workspace,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> QuantizedExperts:
    module = target.module
    stack = (module.get_parameter("down_proj").shape[0],)
    make = random4 if weight_bits == 4 else random8
    packed: dict[str, Packed] = {
        part_of(name): make(stack, inputs, out, generator)
        for name, (out, inputs) in target.matrices.items()
    }
    for name, parameter in list(module._parameters.items()):
        if name not in target.matrices and parameter is not None:  # biases, or a misfit stack
            value = torch.empty(parameter.shape, dtype=dtype, device=generator.device)
            value.normal_(0, STD, generator=generator)
            module._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
    return packed_experts(module, packed, workspace, target.parent)


def random4(stack: tuple[int, ...], inputs: int, out: int, generator: torch.Generator) -> Packed4:
    """Uniform codes around zero points of 7 or 8: mean 0, standard deviation STD."""
    inputs = W4.padded(inputs)
    groups = inputs // BLOCK4
    words = _random_words((*stack, inputs // 8, out), generator)
    zeros = _random_words((*stack, groups, out // 8), generator)
    zeros.bitwise_and_(0x11111111).add_(0x77777777)
    scales = torch.full(
        (*stack, groups, out), STD / _CODE_STD4, dtype=torch.float16, device=generator.device
    )
    return Packed4(words, zeros, scales)


def random8(stack: tuple[int, ...], inputs: int, out: int, generator: torch.Generator) -> Packed8:
    """Uniform int8 codes, standard deviation STD."""
    words = _random_words((*stack, inputs // 4, out), generator)
    scales = torch.full(
        (*stack, out), STD / _CODE_STD8, dtype=torch.float16, device=generator.device
    )
    return Packed8(words, scales)


def _random_words(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    words = torch.empty(shape, dtype=torch.int32, device=generator.device)
    # The upper bound is exclusive and an int32's full range does not fit it; -1 never comes,
    # which changes no test and no timing.
    return words.random_(-(2**31), 2**31 - 1, generator=generator)
