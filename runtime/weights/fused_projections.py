"""Projections that read the same input, computed in one launch: q, k, v and gate, up.

A model calls its projections one after another with the same tensor. Their packed weights are
laid side by side in one buffer (each layer keeps a view of its columns, so bytes do not
change); the first call computes all columns, the others take their part. A decode step of an
8B model loses 96 of its 224 matrix launches, and narrow projections fill the GPU. Where the
model is moved or cast later, the layers compute apart again.

The buffer is taken when the first of a group is packed, and each is written into its columns as it
comes: buffers of their own that went when the group was whole would leave holes between the
layers, which little fits (294 MB of Qwen3-8B's 8 bits).
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch

from ...planner.memory.activation.workspace import FEW_ROWS
from .eight_bits.reference import EightBitRows
from .layout import Packed4, Packed8
from .linear import QuantizedLinear, W4Linear, multiply, multiply_gated, rows_in_8_bits
from .workspace import Workspace

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of projections that transformers' models apply to the same tensor."""


class JointProjection:
    """The members' columns side by side, and the outputs that wait to be taken."""

    def __init__(self, first: QuantizedLinear, widths: Sequence[int]) -> None:
        """Room for members like `first`, whose numbers of outputs are `widths`."""
        self.workspace: Workspace = first.workspace
        self.ends = [0, *accumulate(widths)]
        self.weight, self.bias = _wider(first, self.ends[-1])
        self._missing = len(widths)
        self._input: torch.Tensor | None = None
        self._output: torch.Tensor | None = None
        self._waiting: set[int] = set()
        self._rounded: tuple[torch.Tensor, EightBitRows, set[int]] | None = None

    def place(self, index: int, member: QuantizedLinear) -> None:
        """Write member `index` into its columns, where it lies from now on."""
        own = dict(member.named_buffers())
        member.joint = self, index
        self.lend(member)
        for name, values in own.items():
            member.get_buffer(name).copy_(values)
        self._missing -= 1

    def lend(self, member: QuantizedLinear) -> None:
        """Give a member of the group the views of its columns."""
        assert member.joint is not None
        index = member.joint[1]
        columns = slice(self.ends[index], self.ends[index + 1])
        member.words = self.weight.words[:, columns]
        if isinstance(member, W4Linear) and isinstance(self.weight, Packed4):
            member.scales = self.weight.scales[:, columns]
            member.zeros = self.weight.zeros[:, columns.start // 8 : columns.stop // 8]
        else:
            member.scales = self.weight.scales[columns]
        if self.bias is not None:
            member.bias = self.bias[columns]

    def to(self, device: torch.device) -> None:
        """Move the columns; the members' views are theirs to be lent again."""
        if isinstance(self.weight, Packed4):
            parts = self.weight.words, self.weight.zeros, self.weight.scales
            self.weight = Packed4(*(part.to(device) for part in parts))
        else:
            self.weight = Packed8(self.weight.words.to(device), self.weight.scales.to(device))
        if self.bias is not None:
            self.bias = self.bias.to(device)

    def take(self, index: int, x: torch.Tensor) -> torch.Tensor | None:
        """Member `index`'s output for `x`.

        None where it is better computed alone: in chunks, after the model was moved or cast, and as
        long as some member has not come.
        """
        rows = x.numel() // x.shape[-1]
        if not self._joins(x, rows):
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

    def rows_in_8_bits(self, index: int, x: torch.Tensor) -> EightBitRows:
        """`x` rounded for member `index`: once for all members, held until each has come."""
        if self._rounded is None or self._rounded[0] is not x or index not in self._rounded[2]:
            rows = rows_in_8_bits(x.reshape(-1, x.shape[-1]), self.weight)
            self._rounded = x, rows, set(range(len(self.ends) - 1))
        _, rows, waiting = self._rounded
        waiting.discard(index)
        if not waiting:
            self._rounded = None
        return rows

    def let_go(self) -> None:
        """Hold nothing for members that will not come."""
        self._input = self._output = self._rounded = None

    def gated(self, x: torch.Tensor, *, tanh: bool) -> torch.Tensor | None:
        """act(gate) * up for the two members gate and up, in one launch.

        None where the members are others, or are better computed apart.
        """
        rows = x.numel() // x.shape[-1]
        width = self.ends[1]
        if self.ends != [0, width, 2 * width] or not self._joins(x, rows):
            return None
        flat = x.reshape(rows, x.shape[-1])
        y = multiply_gated(flat, self.weight, self.bias, self.workspace, tanh=tanh)
        return None if y is None else y.view(*x.shape[:-1], width)

    def _joins(self, x: torch.Tensor, rows: int) -> bool:
        cast = self.bias is not None and self.bias.dtype != x.dtype
        here = x.device == self.weight.words.device
        return not (self._missing or cast or rows > FEW_ROWS) and here


def gated(
    gate: torch.nn.Module, up: torch.nn.Module, x: torch.Tensor, *, tanh: bool
) -> torch.Tensor | None:
    """act(gate(x)) * up(x) in one launch where both lie side by side; else None."""
    if not (isinstance(gate, QuantizedLinear) and isinstance(up, QuantizedLinear)):
        return None
    if gate.joint is None or up.joint is None or gate.joint[0] is not up.joint[0]:
        return None
    joint = gate.joint[0]
    assert isinstance(joint, JointProjection)
    return joint.gated(x, tanh=tanh) if (gate.joint[1], up.joint[1]) == (0, 1) else None


def let_go(layer: torch.nn.Module) -> None:
    """Let go of what is held for projections of the same input that are not asked for it."""
    if isinstance(layer, QuantizedLinear) and layer.joint is not None:
        joint = layer.joint[0]
        assert isinstance(joint, JointProjection)
        joint.let_go()


def gated_halves(both: torch.nn.Module, x: torch.Tensor, *, tanh: bool) -> torch.Tensor | None:
    """act(g) * u in one launch, for the halves g and u of both(x) of a few rows; else None."""
    if not isinstance(both, QuantizedLinear) or both.joint is not None:
        return None
    rows = x.numel() // x.shape[-1]
    if rows > FEW_ROWS or (both.bias is not None and both.bias.dtype != x.dtype):
        return None
    y = multiply_gated(x.reshape(rows, -1), both.packed, both.bias, both.workspace, tanh=tanh)
    return None if y is None else y.view(*x.shape[:-1], y.shape[-1])


def siblings_of(name: str, packed: Mapping[str, torch.nn.Module]) -> tuple[str, ...]:
    """Which of SIBLINGS the module of that full name belongs to, if all of them are alike and among
    the modules that are packed; else none."""
    path, _, leaf = name.rpartition(".")
    for names in SIBLINGS:
        if leaf in names:
            members = [packed.get(f"{path}.{other}") for other in names]
            linear = [m for m in members if isinstance(m, torch.nn.Linear)]
            alike = len({(m.in_features, m.bias is None) for m in linear}) == 1
            return names if alike and len(linear) == len(names) else ()
    return ()


def attach(
    parent: torch.nn.Module, leaf: str, layer: torch.nn.Module, siblings: Sequence[str] = ()
) -> None:
    """Put a packed layer into its parent, beside those of its siblings that are packed."""
    setattr(parent, leaf, layer)
    if not siblings or not isinstance(layer, QuantizedLinear):
        return
    members = [getattr(parent, name) for name in siblings]
    there = [m.joint[0] for m in members if isinstance(m, QuantizedLinear) and m.joint is not None]
    joint = there[0] if there else JointProjection(layer, [m.out_features for m in members])
    assert isinstance(joint, JointProjection)
    joint.place(siblings.index(leaf), layer)


def move(model: torch.nn.Module, device: torch.device) -> None:
    """Move a model to `device`, projections that lie side by side as one."""
    groups: dict[int, list[QuantizedLinear]] = {}
    for module in model.modules():
        if isinstance(module, QuantizedLinear) and module.joint is not None:
            groups.setdefault(id(module.joint[0]), []).append(module)
    for members in groups.values():
        for index, member in enumerate(members):
            assert member.joint is not None
            if index == 0:
                member.joint[0].to(device)
            member.joint[0].lend(member)
    model.to(device)


def _wider(like: QuantizedLinear, out: int) -> tuple[Packed4 | Packed8, torch.Tensor | None]:
    """Empty tensors for `out` outputs, otherwise as a layer's: its weight, its bias."""

    def wide(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(*x.shape[:-1], x.shape[-1] * out // like.out_features)

    bias = None if like.bias is None else wide(like.bias)
    if isinstance(like, W4Linear):
        return Packed4(wide(like.words), wide(like.zeros), wide(like.scales)), bias
    return Packed8(wide(like.words), wide(like.scales)), bias
