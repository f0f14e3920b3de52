"""Products of prompts in 8 bits on Hopper through cuBLAS: e4m3, scaled by row and by output.

The weight is written out in 8 bits into the workspace that a 16-bit copy would take, its scales
behind it.
"""

import torch
import triton
from torch import Tensor

from ..layout import Packed4
from ..workspace import Workspace
from .reference import EightBitRows
from .triton_eight import codes4, output_scales, quantize_rows

_COLUMNS = 64  # of a program


def quantize(x: Tensor) -> EightBitRows:
    """Rows [M, K], 16-bit, of any stride."""
    rows, inputs = x.shape
    codes = torch.empty(rows, inputs, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    width = triton.next_power_of_2(inputs)
    quantize_rows[(rows,)](
        x, codes, scales, inputs, x.stride(0), WIDTH=width, num_warps=8 if width > 4096 else 4
    )
    return EightBitRows(codes, scales)


def codes_of(weight: Packed4, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """The weight as e4m3 codes [out, in] and float32 scales [1, out], in the workspace."""
    inputs, outputs = weight.shape
    codes, scales = workspace.eight_bits(inputs, outputs)
    blocks, groups = triton.cdiv(outputs, _COLUMNS), inputs // weight.group_size
    output_scales[(blocks,)](
        weight.scales, scales, groups, outputs, weight.scales.stride(0),
        COLUMNS=_COLUMNS, GROUPS=triton.next_power_of_2(groups),
    )  # fmt: skip
    codes4[(blocks, triton.cdiv(inputs, 128))](
        weight.words, weight.zeros, weight.scales, scales, codes, inputs, outputs,
        weight.words.stride(0), weight.zeros.stride(0), weight.scales.stride(0),
        GROUP=weight.group_size, COLUMNS=_COLUMNS, num_warps=4,
    )  # fmt: skip
    return codes, scales


def multiply(
    rows: EightBitRows, weight: Packed4, bias: Tensor | None, workspace: Workspace
) -> Tensor:
    """y [M, out] = rows @ W + bias in bfloat16."""
    codes, scales = codes_of(weight, workspace)
    y = torch._scaled_mm(rows.codes, codes.mT, rows.scales, scales, out_dtype=torch.bfloat16)
    return y if bias is None else y.add_(bias)
