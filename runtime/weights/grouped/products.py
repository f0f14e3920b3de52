"""Products of a chunk's tokens with the experts that they chose, a layer's experts in one launch.

`sorted_pairs` brings the (token, expert) pairs into their experts' order on the device; `product`
multiplies each pair's row with its expert's matrix; `combined` weighs and sums a token's results.
Nothing waits for the host, and scratch is the pairs' rows alone: no matrix is written out.
"""

from dataclasses import dataclass

import torch
import triton

from ...kernels.stages import deepest
from ..launch import dot_type
from ..layout import BLOCK4, Packed, Packed4
from . import kernels

LARGEST_TILE = 128


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How a grouped product is cut: pairs and columns of a program, its warps and stages."""

    rows: int
    columns: int
    warps: int
    stages: int


def tile_plan(pairs: int, experts: int) -> TilePlan:
    """Tiles about as high as an even share of the pairs, which fills them best."""
    rows = 16
    while rows < LARGEST_TILE and rows * experts < pairs:
        rows *= 2
    return TilePlan(rows, 128, warps=8 if rows >= 64 else 4, stages=3)


@dataclass(frozen=True, slots=True)
class SortedPairs:
    """Pairs in their experts' order: int64 [pairs], pair t k + j being token t's choice j; where
    each expert's end, int32 [experts]."""

    pairs: torch.Tensor
    ends: torch.Tensor

    def __len__(self) -> int:
        return self.pairs.shape[0]


def sorted_pairs(chosen: torch.Tensor, experts: int) -> SortedPairs:
    """Sort `chosen`, whole numbers [tokens, k], on its device."""
    values, pairs = chosen.reshape(-1).sort(stable=True)
    numbers = torch.arange(experts, dtype=values.dtype, device=values.device)
    return SortedPairs(pairs, torch.searchsorted(values, numbers, right=True, out_int32=True))


def ordered(x: torch.Tensor, stack: Packed | None) -> torch.Tensor:
    """x [rows, in], 16-bit contiguous, with its inputs in the order of the stack's words; itself
    where the matrices are plain.

    4 bits: 128 B + 8 r + 2 p + b is input 128 B + 32 p + 2 r + b; 8 bits: 4 r + 2 p + b is input
    p in / 2 + 2 r + b (layout.py). Inputs 2 r and 2 r + 1 stay together, and move as one word.
    """
    if stack is None:
        return x
    rows, inputs = x.shape
    planes = (inputs // BLOCK4, 4, 16) if isinstance(stack, Packed4) else (2, inputs // 4)
    words = x.view(torch.int32).view(rows, *planes).transpose(-1, -2).contiguous()
    return words.view(x.dtype).view(rows, inputs)


def product(
    x: torch.Tensor,
    stack: Packed | torch.Tensor,
    bias: torch.Tensor | None,
    chosen: SortedPairs,
    plan: TilePlan | None = None,
) -> torch.Tensor:
    """y [pairs, out]: row p is x[p // (pairs / len(x))] times the matrix of p's expert.

    x [n, in] in the stack's order (`ordered`). `stack`: packed matrices, or plain ones
    [experts, in, out]. `bias` [experts, out].
    """
    if isinstance(stack, torch.Tensor):
        held, inputs, outputs = _Held(stack, None, None, 16, BLOCK4), stack.shape[1], stack.shape[2]
    elif isinstance(stack, Packed4):
        held = _Held(stack.words, stack.zeros, stack.scales, 4, stack.group_size)
        inputs, outputs = stack.shape
    else:
        held = _Held(stack.words, None, stack.scales, 8, BLOCK4)
        inputs, outputs = stack.shape
    pairs, experts = len(chosen), held.words.shape[0]
    plan = plan or tile_plan(pairs, experts)
    y = torch.empty(pairs, outputs, dtype=x.dtype, device=x.device)
    tiles = min(pairs, pairs // plan.rows + experts)  # each expert's last may be partly empty
    form = {
        "BITS": held.bits, "GROUP": held.group, "EVERY": pairs // x.shape[0],
        "BLOCK_E": triton.next_power_of_2(experts), "BLOCK_M": plan.rows, "BLOCK_N": plan.columns,
        "EVEN": inputs % BLOCK4 == 0, "HAS_BIAS": bias is not None, "DOT": dot_type(x.dtype),
        "num_warps": plan.warps,
    }  # fmt: skip

    def launch(stages: int) -> None:
        kernels.grouped[(triton.cdiv(outputs, plan.columns), tiles)](
            x, chosen.pairs, chosen.ends, held.words, held.zeros, held.scales, bias, y,
            experts, inputs, outputs, x.stride(0), *held.words.stride(),
            *_strides(held.zeros), *_strides(held.scales), 0 if bias is None else bias.stride(0),
            STAGES=stages, **form,
        )  # fmt: skip

    deepest(("grouped", *form.values(), x.dtype, x.device), plan.stages, launch)
    return y


@dataclass(frozen=True, slots=True)
class _Held:
    """What the kernel reads of a stack: codes (or the matrices), zero points, scales."""

    words: torch.Tensor
    zeros: torch.Tensor | None
    scales: torch.Tensor | None
    bits: int
    group: int


def _strides(part: torch.Tensor | None) -> tuple[int, int]:
    """From expert to expert and from group to group; scales of 8 bits have one group."""
    if part is None:
        return 0, 0
    return part.stride(0), part.stride(1) if part.dim() == 3 else 0


def combined(y: torch.Tensor, weights: torch.Tensor, out: torch.Tensor) -> None:
    """Write tokens' weighted sums into `out` [tokens, H]; y [pairs, H], weights [tokens, k]."""
    tokens, k = weights.shape
    columns = min(1024, triton.next_power_of_2(y.shape[1]))
    kernels.combine[(tokens, triton.cdiv(y.shape[1], columns))](
        y, weights.contiguous(), out, y.shape[1], TOP_K=k, BLOCK_H=columns, num_warps=4
    )
