"""Linear layers on packed weights, in place of `torch.nn.Linear`.

One row of x (single-token decode) and a few rows run in kernels that read the packed weight;
more rows dequantize it into the shared workspace and use the library's matmul, whose cost the
dequantization is small beside. Without a GPU everything is plain torch: the reference.
"""

from typing import Protocol

import torch

from ...planner.memory.activation.workspace import FEW_ROWS
from . import layout
from .awq_format import AWQTensors
from .eight_bits import reference as eight_bits
from .eight_bits.reference import EightBitRows
from .layout import Packed, Packed4, Packed8
from .rounding import rounded4, rounded8
from .workspace import Workspace, require_16_bits


def multiply(
    x: torch.Tensor, weight: Packed, bias: torch.Tensor | None, workspace: Workspace
) -> torch.Tensor:
    """y [rows, out] = x [rows, in] @ W + bias, by the fastest way for that many rows."""
    x = as_stored(x, weight)
    if not x.is_cuda:
        return _affine(x, weight.dequantized(x.dtype), bias)
    from . import launch  # Triton, which only GPU machines need

    require_16_bits(x.dtype)
    x = x.contiguous()
    if x.shape[0] == 1:
        return launch.one_row(x, weight, bias, workspace)
    if x.shape[0] <= FEW_ROWS:
        return launch.few_rows(x, weight, bias, workspace)
    scratch = workspace.weight(*weight.shape, x.dtype)
    launch.dequantize(weight, scratch)
    return _affine(x, scratch, bias)


def as_stored(x: torch.Tensor, weight: Packed) -> torch.Tensor:
    """`x` [rows, in] with zeros behind it, where the matrix is stored with more inputs."""
    more = weight.shape[0] - x.shape[-1]
    return torch.nn.functional.pad(x, (0, more)) if more else x


def multiply_gated(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    workspace: Workspace,
    *,
    tanh: bool,
) -> torch.Tensor | None:
    """silu(g) * u, or with tanh's GELU, [rows, out / 2], for g, u the halves of x @ W + bias.

    None where no kernel does it in one launch.
    """
    if not x.is_cuda or x.dtype not in (torch.bfloat16, torch.float16):
        return None
    from . import launch

    x = as_stored(x, weight).contiguous()
    return launch.gated(x, weight, bias, workspace, tanh=tanh)


def rows_in_8_bits(x: torch.Tensor, weight: Packed) -> EightBitRows:
    """`x` [rows, in] as a product in 8 bits with `weight` takes it."""
    x = as_stored(x, weight)
    if not x.is_cuda:
        return eight_bits.quantized_rows(x)
    from .eight_bits import product

    return product.quantize(x)


def multiply_in_8_bits(
    rows: EightBitRows,
    weight: Packed4,
    bias: torch.Tensor | None,
    workspace: Workspace,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`multiply` of rows that are in 8 bits, weights too; without a GPU of their values."""
    if not rows.codes.is_cuda:
        return _affine(rows.values(dtype), eight_bits.rounded_weight(weight, dtype), bias)
    from .eight_bits import product

    return product.multiply(rows, weight, bias, workspace)


def dense(layer: "QuantizedLinear", dtype: torch.dtype) -> torch.Tensor:
    """The layer's weight [out, in]: on a GPU in the shared workspace, valid until its next use."""
    packed = layer.packed
    if not packed.words.is_cuda:
        return packed.dequantized(dtype).mT[:, : layer.in_features]
    from . import launch

    require_16_bits(dtype)
    scratch = layer.workspace.weight(*packed.shape, dtype)
    launch.dequantize(packed, scratch)
    return scratch.mT[:, : layer.in_features]


def _affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


class Joint(Protocol):
    """Several layers on the same input, computed together (fused_projections.py)."""

    def take(self, index: int, x: torch.Tensor) -> torch.Tensor | None:
        """Member `index`'s output for `x`; None where it is better computed alone."""

    def rows_in_8_bits(self, index: int, x: torch.Tensor) -> EightBitRows:
        """`x` rounded for member `index`, once for all members."""

    def lend(self, member: "QuantizedLinear") -> None:
        """Give a member of the group the views of its columns."""

    def to(self, device: torch.device) -> None:
        """Move the columns; the members' views are theirs to be lent again."""


class QuantizedLinear(torch.nn.Module):
    """y = x W + b with W packed; what 4 and 8 bits share.

    `workspace` is shared by the layers of a model and owned by the model, hence kept out of
    this module's children. `joint`, where set, computes this layer, its member of that number,
    together with the others that read the same input.
    """

    words: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self,
        weight: Packed,
        bias: torch.Tensor | None,
        workspace: Workspace,
        inputs: int | None = None,
    ) -> None:
        """`inputs`: those of x, where the matrix is stored with zeros behind them."""
        super().__init__()
        stored, self.out_features = weight.shape
        self.in_features = stored if inputs is None else inputs
        self.register_buffer("words", weight.words)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("bias", bias)
        self._workspace = (workspace,)
        self.joint: tuple[Joint, int] | None = None

    @property
    def workspace(self) -> Workspace:
        return self._workspace[0]

    @property
    def packed(self) -> Packed:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [.., in] -> [.., out] in x's dtype (16-bit on a GPU)."""
        if self.joint is not None:
            joint, index = self.joint
            together = joint.take(index, x)
            if together is not None:
                return together
        flat, packed = x.reshape(-1, self.in_features), self.packed
        eight = self.workspace.rows_in_8_bits and flat.shape[0] > FEW_ROWS
        if eight and isinstance(packed, Packed4):
            rows = (
                rows_in_8_bits(flat, packed)
                if self.joint is None
                else self.joint[0].rows_in_8_bits(self.joint[1], x)
            )
            y = multiply_in_8_bits(rows, packed, self.bias, self.workspace, x.dtype)
        else:
            y = multiply(flat, packed, self.bias, self.workspace)
        return y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class W4Linear(QuantizedLinear):
    """AWQ's 4 bits: codes, zero points and fp16 scales in groups of inputs."""

    zeros: torch.Tensor

    def __init__(
        self,
        weight: Packed4,
        bias: torch.Tensor | None,
        workspace: Workspace,
        inputs: int | None = None,
    ) -> None:
        super().__init__(weight, bias, workspace, inputs)
        self.register_buffer("zeros", weight.zeros)

    @property
    def packed(self) -> Packed4:
        return Packed4(self.words, self.zeros, self.scales)

    @classmethod
    def from_awq(
        cls, tensors: AWQTensors, bias: torch.Tensor | None, workspace: Workspace
    ) -> "W4Linear":
        layout.check_shape(4, tensors.in_features, tensors.out_features)
        return cls(layout.from_awq(tensors), bias, workspace)

    @classmethod
    def from_weight(
        cls,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        workspace: Workspace,
        on: torch.device | None = None,
    ) -> "W4Linear":
        """Round `weight` [out, in] to nearest in groups of 128, without a search, `on` a device
        that does it faster than where it lies (rounding.py)."""
        return cls(rounded4(weight, on), bias, workspace, weight.shape[1])


class W8Linear(QuantizedLinear):
    """int8 with one fp16 scale an output channel."""

    @property
    def packed(self) -> Packed8:
        return Packed8(self.words, self.scales)

    @classmethod
    def from_weight(
        cls,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        workspace: Workspace,
        on: torch.device | None = None,
    ) -> "W8Linear":
        return cls(rounded8(weight, on), bias, workspace)
