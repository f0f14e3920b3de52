"""Constants that a model makes anew on the host in every pass, made once.

Gemma 3n's sparse feed-forward cuts at a quantile of the normal distribution, which its forward
copies to the device each time and checks there: no CUDA graph can hold that. The number is the same
for every token, so it is computed once for each device and dtype, before anything is captured.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def hold_constants(model: nn.Module) -> list[Any]:
    """Let `model`'s modules keep their constants; the modules changed."""
    changed = []
    for module in model.modules():
        sparse = getattr(module, "activation_sparsity", 0.0)
        if hasattr(module, "_gaussian_topk") and "_gaussian_topk" not in module.__dict__ and sparse:
            module._gaussian_topk = partial(_gaussian_topk, float(sparse), {})  # type: ignore[assignment]
            changed.append(module)
    return changed


def restore(changed: list[Any]) -> None:
    """Give modules that `hold_constants` changed their own way back."""
    for module in changed:
        module.__dict__.pop("_gaussian_topk", None)
    changed.clear()


def _gaussian_topk(sparsity: float, kept: dict[Any, Tensor], inputs: Tensor) -> Tensor:
    """`inputs` less what all but the largest 1 - sparsity of them reach, at 0 at least."""
    where = inputs.device, inputs.dtype
    if where not in kept:
        share = torch.tensor(sparsity, dtype=torch.float32, device=inputs.device)
        kept[where] = torch.distributions.normal.Normal(0, 1).icdf(share).type(inputs.dtype)
    mean = torch.mean(inputs, dim=-1, keepdim=True)
    spread = torch.std(inputs, dim=-1, keepdim=True, unbiased=False)
    cutoff = mean + spread * kept[where]
    return nn.functional.relu(inputs - cutoff)
