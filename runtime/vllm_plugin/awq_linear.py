"""AWQ's linear layers on this project's kernels: a vLLM linear method over runtime/weights.

Products of up to 64 rows read the packed matrix; more rows dequantize it into one scratch and use
the library's product. vLLM splits, merges and loads layers as for its own AWQ methods; layers that
the packed layout does not hold are left to those.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from vllm.model_executor.layers.quantization.auto_awq import (
    AutoAWQConfig,
    AutoAWQLinearMethod,
    AutoAWQMarlinLinearMethod,
)

from ..weights.awq_format import AWQTensors
from ..weights.layout import BLOCK4, Packed4, from_awq
from ..weights.linear import multiply
from ..weights.workspace import Workspace
from .names import QUANTIZATION


class PackedAwqConfig(AutoAWQConfig):
    """vLLM's AWQ configuration, whose 4-bit linear layers are ours."""

    @classmethod
    def get_name(cls) -> str:
        return QUANTIZATION

    def get_quant_method(self, layer: Any, prefix: str) -> Any:
        """Ours where vLLM would take one of its AWQ methods for a linear layer that fits."""
        method = super().get_quant_method(layer, prefix)
        known = isinstance(method, AutoAWQMarlinLinearMethod | AutoAWQLinearMethod)
        return PackedAwqMethod(self) if known and self._holds(layer) else method

    def _holds(self, layer: Any) -> bool:
        inputs = getattr(layer, "input_size_per_partition", None) or layer.input_size
        outputs = getattr(layer, "output_size_per_partition", None) or layer.output_size
        whole = int(inputs) % BLOCK4 == 0 and int(outputs) % 8 == 0
        return bool(whole and self.zero_point and self.group_size in (32, 64, 128))


class PackedAwqMethod(AutoAWQLinearMethod):
    """One layer: loaded as vLLM's AWQ, then reordered in place, byte for byte."""

    def process_weights_after_loading(self, layer: Any) -> None:
        stored = AWQTensors(layer.qweight.data, layer.qzeros.data, layer.scales.data)
        packed = from_awq(stored)
        inputs, outputs = packed.shape
        _reserve(packed.words.device, inputs * outputs)
        layer.qweight = Parameter(packed.words, requires_grad=False)
        layer.qzeros = Parameter(packed.zeros, requires_grad=False)
        layer.scales = Parameter(packed.scales, requires_grad=False)

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [.., inputs] -> [.., outputs]."""
        rows = x.reshape(-1, x.shape[-1])
        y: Tensor = awq_product(rows, layer.qweight, layer.qzeros, layer.scales, bias)
        return y.view(*x.shape[:-1], y.shape[-1])


@torch.library.custom_op("kvpareto::awq_product", mutates_args=())
def awq_product(
    x: Tensor, words: Tensor, zeros: Tensor, scales: Tensor, bias: Tensor | None
) -> Tensor:
    """x [rows, inputs] @ W + bias; one node to torch.compile, whatever kernels it launches."""
    return multiply(x, Packed4(words, zeros, scales), bias, _scratches(x.device)[-1])


@awq_product.register_fake
def _(x: Tensor, words: Tensor, zeros: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], words.shape[-1])


@functools.cache
def _scratches(device: torch.device) -> list[Workspace]:
    """The scratches made so far; the last one holds the largest matrix of all layers."""
    return []


def _reserve(device: torch.device, elements: int) -> None:
    """Scratch for matrices of that size, made while models load: never within a graph."""
    made = _scratches(device)
    if not made or made[-1].scratch.numel() < 2 * elements:
        made[:] = [Workspace(elements, device)]
