"""Projections that read the same input, computed in one launch: q, k, v and gate, up.

A model calls its projections one after another with the same tensor. Their packed weights are
laid side by side in one buffer (each layer keeps a view of its columns, so bytes do not
change); the first call computes all columns, the others take their part. A decode step of an
8B model loses 96 of its 224 matrix launches, and narrow projections fill the GPU. Where the
model is moved later, the layers compute apart again.

A group is joined as soon as its last member is packed: the members' own buffers are then free for
the next layer's. Joined at the end, they leave a hole in every layer that nothing fits (220 MB of
Qwen2.5-3B's).
"""

from functools import partial

import torch

from .layout import Packed, Packed4, Packed8
from .linear import FEW_ROWS, QuantizedLinear, W4Linear, multiply
from .workspace import Workspace

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of projections that transformers' models apply to the same tensor."""


class JointProjection:
    """The members' columns side by side, and the outputs that wait to be taken."""

    def __init__(self, members: list[QuantizedLinear]) -> None:
        self.workspace: Workspace = members[0].workspace
        self.weight = _side_by_side(members)
        self.bias = _joined_bias(members)
        self.ends = [0]
        for member in members:
            self.ends.append(self.ends[-1] + member.out_features)
        self._input: torch.Tensor | None = None
        self._output: torch.Tensor | None = None
        self._waiting: set[int] = set()
        for index, member in enumerate(members):
            columns = slice(self.ends[index], self.ends[index + 1])
            member.words = self.weight.words[:, columns]
            if isinstance(member, W4Linear) and isinstance(self.weight, Packed4):
                member.scales = self.weight.scales[:, columns]
                member.zeros = self.weight.zeros[:, columns.start // 8 : columns.stop // 8]
            else:
                member.scales = self.weight.scales[columns]
            if self.bias is not None:
                member.bias = self.bias[columns]
            member.joint = partial(self.take, index)

    def take(self, index: int, x: torch.Tensor) -> torch.Tensor | None:
        """Member `index`'s output for `x`.

        None where it is better computed alone: in chunks, or after the model was moved.
        """
        rows = x.numel() // x.shape[-1]
        if rows > FEW_ROWS or x.device != self.weight.words.device:
            return None
        if self._input is not x or index not in self._waiting or self._output is None:
            flat = x.reshape(rows, x.shape[-1])
            self._output = multiply(flat, self.weight, self.bias, self.workspace)
            self._input = x
            self._waiting = set(range(len(self.ends) - 1))
        self._waiting.discard(index)
        part = self._output[:, self.ends[index] : self.ends[index + 1]]
        if not self._waiting:
            self._input = self._output = None
        return part.view(*x.shape[:-1], part.shape[-1])


def join_siblings(parent: torch.nn.Module) -> int:
    """Join the groups of SIBLINGS among `parent`'s own children that are wholly quantized alike and
    apart until now; how many were joined."""
    joined = 0
    for names in SIBLINGS:
        members = [getattr(parent, name, None) for name in names]
        quantized = [m for m in members if isinstance(m, QuantizedLinear)]
        alike = len({(type(m), m.bias is None, m.in_features) for m in quantized}) == 1
        if len(quantized) == len(names) and alike and quantized[0].joint is None:
            JointProjection(quantized)
            joined += 1
    return joined


def move(model: torch.nn.Module, device: torch.device) -> None:
    """Move a model to `device` and join its projections there, one layer after the other."""
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.joint = None
    for parent in model.modules():
        for child in parent.children():
            if isinstance(child, QuantizedLinear):
                child.to(device)
        join_siblings(parent)
    model.to(device)


def _side_by_side(members: list[QuantizedLinear]) -> Packed:
    packed = [member.packed for member in members]
    words = torch.cat([p.words for p in packed], dim=1)
    scales = torch.cat([p.scales for p in packed], dim=-1)
    zeros = [p.zeros for p in packed if isinstance(p, Packed4)]
    return Packed4(words, torch.cat(zeros, dim=1), scales) if zeros else Packed8(words, scales)


def _joined_bias(members: list[QuantizedLinear]) -> torch.Tensor | None:
    biases = [member.bias for member in members if member.bias is not None]
    return torch.cat(biases) if biases else None
