"""Mixture-of-experts layers whose stacked expert matrices are packed.

transformers stacks a layer's experts in `gate_up_proj` [experts, 2 I, H] and `down_proj`
[experts, H, I] (some models transposed, some with biases) and calls the module with the tokens,
the chosen experts and their weights. Here a few rows read the chosen experts' packed matrices one
by one; a chunk sorts its tokens by expert and multiplies all of them in one launch (grouped/), of
a long chunk so many at a time that what they take is bounded. Without a GPU one expert comes after
another: the reference. Where the format cannot hold one of the two stacks, that one stays as it is.
"""

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING

import torch

from ...planner.memory.activation.workspace import FEW_ROWS, tokens_at_once
from .layout import Packed, Packed4, Packed8
from .linear import as_stored, multiply
from .rounding import rounded4, rounded8
from .workspace import Workspace, require_16_bits

if TYPE_CHECKING:
    from .grouped.products import SortedPairs


class QuantizedExperts(torch.nn.Module):
    """Stands in for a transformers experts module.

    `inner` is that module without the packed matrices: it keeps the activation, the way gate
    and up are combined (`_apply_gate`), biases, and a stack that is not packed. `packed` holds
    "first" (gate and up, or up alone) and "down": stacks [experts, ..] in layout.py's order.
    """

    def __init__(
        self, inner: torch.nn.Module, packed: Mapping[str, Packed], workspace: Workspace
    ) -> None:
        super().__init__()
        self.inner = inner
        gated = getattr(inner, "has_gate", True)
        self._transposed = is_transposed(inner)
        self.names = {"first": "gate_up_proj" if gated else "up_proj", "down": "down_proj"}
        for part, stack in packed.items():
            inner._parameters.pop(self.names[part], None)
            self.register_buffer(f"{part}_words", stack.words)
            self.register_buffer(f"{part}_scales", stack.scales)
            if isinstance(stack, Packed4):
                self.register_buffer(f"{part}_zeros", stack.zeros)
        # transformers' initializer must not look for what is gone.
        inner._is_hf_initialized = True  # type: ignore[assignment]
        self._workspace = (workspace,)

    def stack(self, part: str) -> Packed | None:
        """The packed matrices "first" or "down"; None where they stayed plain."""
        words, scales = getattr(self, f"{part}_words", None), getattr(self, f"{part}_scales", None)
        if words is None or scales is None:
            return None
        zeros = getattr(self, f"{part}_zeros", None)
        return Packed8(words, scales) if zeros is None else Packed4(words, zeros, scales)

    def forward(
        self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """hidden [tokens, H], chosen and weights [tokens, k] -> [tokens, H]."""
        if not hidden.is_cuda:
            return self._one_by_one(hidden, chosen, weights)
        if chosen.numel() <= FEW_ROWS:
            return self._decode(hidden, chosen, weights)
        tokens, k = chosen.shape
        most = tokens_at_once(tokens, k, self._count())
        out = torch.empty_like(hidden)
        parts = (x.split(most) for x in (hidden, chosen, weights, out))
        for part in zip(*parts, strict=True):
            self._together(*part)
        return out

    def _decode(
        self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        tokens, k = chosen.shape
        experts = chosen.reshape(-1).contiguous()
        rows = self._activate(self._own_expert("first", hidden, experts))
        rows = self._own_expert("down", rows, experts)
        weighted = rows.view(tokens, k, -1) * weights[:, :, None]
        return weighted.sum(dim=1).to(hidden.dtype)

    def _own_expert(self, part: str, x: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        """Row r of the result is x[r // (len(experts) / len(x))] times expert experts[r]."""
        stack, bias = self.stack(part), self._bias(part)
        if stack is not None:
            from . import launch  # Triton, which only GPU machines need

            return launch.one_row(
                as_stored(x, stack).contiguous(),
                stack,
                bias,
                self._workspace[0],
                experts=experts,
                rows=len(experts),
            )
        rows = x.repeat_interleave(len(experts) // len(x), dim=0)[:, None]
        product = torch.bmm(rows, self._plain(part)[experts])[:, 0]
        return product if bias is None else product + bias[experts]

    def _together(
        self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Write the tokens' results into `out`; nothing waits for the host."""
        from .grouped import products  # Triton, which only GPU machines need

        order = products.sorted_pairs(chosen, self._count())
        rows = self._grouped("first", hidden, order)
        rows = self._activate(rows)
        rows = self._grouped("down", rows, order)
        products.combined(rows, weights, out)

    def _grouped(self, part: str, x: torch.Tensor, order: "SortedPairs") -> torch.Tensor:
        """Row p of the result is x[p // (pairs / len(x))] times the matrix of p's expert."""
        from .grouped import products

        require_16_bits(x.dtype)
        stack, bias = self.stack(part), self._bias(part)
        if stack is None:
            return products.product(x.contiguous(), self._plain(part), bias, order)
        x = products.ordered(as_stored(x, stack).contiguous(), stack)
        return products.product(x, stack, bias, order)

    def _one_by_one(
        self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        k = chosen.shape[1]
        order = chosen.reshape(-1).argsort(stable=True)
        result = torch.zeros_like(hidden)
        flat_weights = weights.reshape(-1)
        counts = torch.bincount(chosen.reshape(-1), minlength=self._count())
        for expert, slots in enumerate(order.split(counts.tolist())):
            if not len(slots):
                continue
            tokens = slots // k
            rows = self._activate(self._one_expert("first", hidden[tokens], expert))
            rows = self._one_expert("down", rows, expert) * flat_weights[slots, None]
            result.index_add_(0, tokens, rows.to(result.dtype))
        return result

    def _count(self) -> int:
        """How many experts there are."""
        stack = self.stack("first")
        stacked = self._plain("first") if stack is None else stack.words
        return stacked.shape[0]

    def _one_expert(self, part: str, rows: torch.Tensor, expert: int) -> torch.Tensor:
        stack, biases = self.stack(part), self._bias(part)
        bias = None if biases is None else biases[expert]
        if stack is not None:
            return multiply(rows, stack.member(expert), bias, self._workspace[0])
        product = rows @ self._plain(part)[expert]
        return product if bias is None else product + bias

    def _plain(self, part: str) -> torch.Tensor:
        """A stack that is not packed, as [experts, in, out]."""
        parameter = self.inner.get_parameter(self.names[part])
        return parameter if self._transposed else parameter.mT

    def _activate(self, rows: torch.Tensor) -> torch.Tensor:
        gated = getattr(self.inner, "has_gate", True)
        return self.inner._apply_gate(rows) if gated else self.inner.act_fn(rows)  # type: ignore[operator]

    def _bias(self, part: str) -> torch.Tensor | None:
        return getattr(self.inner, f"{self.names[part]}_bias", None)


class InputRoutedExperts(QuantizedExperts):
    """Experts that are routed by what they are given (Llama 4's); `k` is how many a token chooses.

    transformers gives them the row of every token for every expert, times the token's score for
    that expert; where it did not choose the expert the score is 0, and so is the row. The zeros
    need no product: each token's rows that are none go to their experts alone, as elsewhere.
    """

    def __init__(
        self, inner: torch.nn.Module, packed: Mapping[str, Packed], workspace: Workspace, k: int
    ) -> None:
        super().__init__(inner, packed, workspace)
        self._k = k

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """hidden [experts x tokens, H], experts first -> the same."""
        rows = hidden.view(self._count(), -1, hidden.shape[-1])
        tokens = torch.arange(rows.shape[1], device=rows.device).repeat_interleave(self._k)
        strength = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1)
        chosen = strength.topk(self._k, dim=0).indices.mT.reshape(-1)
        picked, ones = rows[chosen, tokens], rows.new_ones(len(chosen), 1)
        result = torch.zeros_like(rows)
        result[chosen, tokens] = super().forward(picked, chosen[:, None], ones)
        return result.view(hidden.shape)

    def _activate(self, rows: torch.Tensor) -> torch.Tensor:
        gate, up = rows.chunk(2, dim=-1)
        return up * self.inner.act_fn(gate)  # type: ignore[operator]


def packed_experts(
    module: torch.nn.Module,
    packed: Mapping[str, Packed],
    workspace: Workspace,
    parent: torch.nn.Module,
) -> QuantizedExperts:
    """What stands in for a transformers experts module that belongs to `parent`."""
    given = list(signature(type(module).forward).parameters)[1:]
    if len(given) == 1:
        return InputRoutedExperts(module, packed, workspace, int(parent.top_k))  # type: ignore[arg-type]
    return QuantizedExperts(module, packed, workspace)


def is_stack_of_experts(module: torch.nn.Module) -> bool:
    """Whether `module` is a transformers experts module with stacked matrices."""
    first = getattr(module, "gate_up_proj", getattr(module, "up_proj", None))
    down = getattr(module, "down_proj", None)
    return all(isinstance(p, torch.nn.Parameter) and p.dim() == 3 for p in (first, down))


def is_transposed(module: torch.nn.Module) -> bool:
    """Whether stacks lie as [experts, in, out]: as the module says, else by their shapes."""
    said = getattr(module, "is_transposed", None)
    if said is not None:
        return bool(said)
    first, down = (module._parameters.get(name) for name in ("gate_up_proj", "down_proj"))
    return first is not None and down is not None and first.shape[2] != down.shape[1]


def pack_stack(
    parameter: torch.Tensor, bits: int, transposed: bool, on: torch.device | None = None
) -> Packed:
    """Round every expert's matrix to nearest: [experts, out, in] (or [experts, in, out]); `on` as
    rounding.py has it."""
    if bits == 4:
        four = [rounded4(m.T if transposed else m, on) for m in parameter]
        return Packed4(
            torch.stack([p.words for p in four]),
            torch.stack([p.zeros for p in four]),
            torch.stack([p.scales for p in four]),
        )
    eight = [rounded8(m.T if transposed else m, on) for m in parameter]
    return Packed8(torch.stack([p.words for p in eight]), torch.stack([p.scales for p in eight]))
