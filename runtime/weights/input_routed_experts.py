"""Packed experts that are routed by what they are given: Llama 4's.

transformers gives them the row of every token for every expert, times the token's score for that
expert; where it did not choose the expert the score is 0, and so is the row. The zeros need no
product: each token's rows that are none go to their experts alone, as elsewhere.
"""

from collections.abc import Mapping
from inspect import signature

import torch

from .experts import QuantizedExperts
from .layout import Packed
from .linear import FEW_ROWS
from .workspace import Workspace


class InputRoutedExperts(QuantizedExperts):
    """See QuantizedExperts; `k` is how many experts a token chooses."""

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
        few = hidden.is_cuda and len(chosen) <= FEW_ROWS
        run = self._decode if few else self._one_by_one
        result = torch.zeros_like(rows)
        result[chosen, tokens] = run(picked, chosen[:, None], ones)
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
