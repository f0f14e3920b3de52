"""Constants that a model makes anew on the host in every pass, made once.

Gemma 3n's sparse feed-forward cuts at a quantile of the normal distribution, which its forward
copies to the device each time and checks there: no CUDA graph can hold that. The number is the same
for every token, so it is computed once for each device and dtype, before anything is captured. In
transformers 5.17 its streams' least norm is such a copy too, of a tensor made within the forward:
while a pass is captured, the number is filled in on the device instead (`on_device`).
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


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


def on_device(model: nn.Module) -> AbstractContextManager[object]:
    """Around the capture of a model's pass: numbers that it makes on the host are made on the
    device, where the model is one that does so."""
    makes = any(hasattr(module, "_gaussian_topk") for module in model.modules())
    return NumbersOnDevice() if makes else nullcontext()


class NumbersOnDevice(TorchDispatchMode):
    """A number of the host that goes to a device is filled in there: no copy, which a graph of
    the device could not hold."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in (torch.ops.aten.to, torch.ops.aten._to_copy):
            given, said = args[0], [*args[1:], *kwargs.values()]
            where = next((x for x in said if isinstance(x, torch.device)), given.device)
            dtype = next((x for x in said if isinstance(x, torch.dtype)), given.dtype)
            if given.dim() == 0 and given.is_cpu and where.type != "cpu":
                return torch.full((), given.item(), dtype=dtype, device=where)
        return func(*args, **kwargs)


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
