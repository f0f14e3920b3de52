"""Products of prompts in 8 bits on Hopper, through cuBLAS: codes times codes, scaled by blocks.

The weight's codes are written out in 8 bits into the workspace that a 16-bit copy would take, their
scales behind them. Elsewhere rows are rounded all the same, and multiplied with in 16 bits.
"""

import torch
import triton
from torch import Tensor

from ....planner.memory.activation.workspace import eight_bit_rows
from ..layout import Packed4
from ..workspace import Workspace
from .reference import BLOCK, EightBitRows
from .triton_eight import codes4, quantize_rows

_COLUMNS, _ROWS = 64, 16  # of a program


def quantize(x: Tensor) -> EightBitRows:
    """Rows [M, K], 16-bit, of any stride; behind them lies anything, up to the rows that cuBLAS's
    scales come in."""
    rows, inputs = x.shape
    held = eight_bit_rows(rows)
    codes = torch.empty(held, inputs, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(inputs // BLOCK, held, dtype=torch.float32, device=x.device)
    quantize_rows[(triton.cdiv(rows, _ROWS), inputs // BLOCK)](
        x, codes, scales, rows, inputs, x.stride(0), held, ROWS=_ROWS, num_warps=4
    )
    return EightBitRows(codes, scales, rows)


def codes_of(weight: Packed4, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """The weight as e4m3 codes [out, in] and float32 scales [in / BLOCK, out], in the workspace."""
    inputs, outputs = weight.shape
    codes, scales = workspace.eight_bits(inputs, outputs, BLOCK)
    codes4[(triton.cdiv(outputs, _COLUMNS), inputs // BLOCK)](
        weight.words, weight.zeros, weight.scales, codes, scales, inputs, outputs,
        weight.words.stride(0), weight.zeros.stride(0), weight.scales.stride(0),
        COLUMNS=_COLUMNS, num_warps=4,
    )  # fmt: skip
    return codes, scales


def multiply(
    rows: EightBitRows,
    weight: Packed4,
    bias: Tensor | None,
    workspace: Workspace,
    dtype: torch.dtype,
) -> Tensor:
    """y [M, out] = rows @ W + bias in `dtype`."""
    codes, scales = codes_of(weight, workspace)
    y = torch._scaled_mm(rows.codes, codes.mT, rows.scales.mT, scales, out_dtype=dtype)
    y = y[: rows.count]
    return y if bias is None else y.add_(bias)
