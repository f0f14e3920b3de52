"""Choosing and launching the kernels: one function a product, each checked to fit its scratch.

The plans (block sizes, splits, warps) were chosen by measurement on an H200:
docs/weights_runtime.md has the table and the command that repeats it.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from . import kernels, kernels_tile
from .cuda import cuda_parts, cuda_ring, cuda_row, cuda_stream, cuda_sweep, cuda_tile, cuda_wide
from .layout import BLOCK4, Packed, Packed4
from .workspace import COUNTERS, Workspace

INTERPRETED = not isinstance(kernels.row4, triton.JITFunction)
"""Triton's interpreter is on: kernels take CPU tensors, and 16-bit dots must run in fp32."""


_TILES = (16, 128, 4), (32, 64, 4), (64, 64, 8)
"""Rows, columns and warps of few_rows' programs."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How a product is cut: columns a program, word rows at once, splits of the inputs."""

    columns: int
    lanes: int
    splits: int
    warps: int
    stages: int
    rows: int = 1


def one_row_plan(weight: Packed, rows: int) -> LaunchPlan:
    """Enough programs to fill the GPU, each with enough of the inputs to amortise its end."""
    inputs, outputs = weight.shape
    four = isinstance(weight, Packed4)
    columns, lanes = (64, 8) if four else (128, 32)
    units = inputs // BLOCK4 if four else -(-inputs // BLOCK4)
    return LaunchPlan(
        columns, lanes, _splits(outputs, columns, rows, units, 2000), warps=4, stages=1
    )


def few_rows_plan(weight: Packed, rows: int) -> LaunchPlan:
    """Tiles of 16, 32 or 64 rows; fewer splits than one row needs, since programs do more.

    Tiles and warps are such that every thread's part fits its registers. What does not goes to
    local memory, which the driver sets aside for all threads of the GPU: 64 rows by 128 columns
    on four warps took 0.5 GB of an H200 for the rest of the process.
    """
    inputs, outputs = weight.shape
    tile, columns, warps = (
        (16, 128, 4) if rows <= 16 else (32, 64, 4) if rows <= 32 else (64, 64, 8)
    )
    units, tiles = -(-inputs // BLOCK4), triton.cdiv(rows, tile)
    splits = min(8, _splits(outputs, columns, tiles, units, 440 if tile == 16 else 200))
    return LaunchPlan(columns, 16, splits, warps=warps, stages=3, rows=tile)


def _splits(outputs: int, columns: int, rows: int, units: int, programs: int) -> int:
    """The power of two that brings at least `programs` programs, each with two units."""
    blocks, splits = triton.cdiv(outputs, columns) * rows, 1
    while splits < kernels.MOST_SPLITS and blocks * splits < programs and units >= 4 * splits:
        splits *= 2
    return splits


def one_row(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    workspace: Workspace,
    *,
    experts: torch.Tensor | None = None,
    rows: int | None = None,
    plan: LaunchPlan | None = None,
) -> torch.Tensor:
    """y [rows, out], each row by the fp32 units: row r is x[r // (rows / len(x))] @ W_r.

    x [n, in] 16-bit contiguous; W_r is the matrix, or member experts[r] of the stack.
    `bias` [out], or [members, out] for a stack. A `plan` asks for the Triton kernel.
    """
    alone = plan is None and experts is None and rows in (None, x.shape[0])
    if (
        alone
        and isinstance(weight, Packed4)
        and cuda_stream.faster(x.shape[0], 0)
        and cuda_stream.takes(weight, x)
    ):
        return cuda_stream.product(x, weight, bias, workspace)
    if plan is None and cuda_row.takes(weight, x, rows=rows):
        return cuda_row.product(x, weight, bias, experts=experts, rows=rows)
    inputs, outputs = weight.shape
    count = rows or x.shape[0]
    plan = plan or one_row_plan(weight, count)
    y = torch.empty(count, outputs, dtype=x.dtype, device=x.device)
    blocks = triton.cdiv(outputs, plan.columns)
    splits = _splits_that_fit(plan.splits, y.numel(), blocks * count, workspace)
    common = {
        "BLOCK_N": plan.columns,
        "LANES": plan.lanes,
        "X_EVERY": count // x.shape[0],
        "HAS_EXPERTS": experts is not None,
        "HAS_BIAS": bias is not None,
        "X_BF16": x.dtype == torch.bfloat16,
        "STAGES": plan.stages,
        "num_warps": plan.warps,
    }
    pairs, partial, counters = x.view(torch.int32), workspace.partial(), workspace.counters
    stacked = experts is not None
    bias_expert = bias.stride(0) if bias is not None and stacked else 0
    grid = (blocks, splits, count)
    if isinstance(weight, Packed4):
        kernels.row4[grid](
            pairs, weight.words, weight.zeros, weight.scales, bias, y, partial, counters, experts,
            inputs, outputs,
            weight.words.stride(-2), weight.zeros.stride(-2), weight.scales.stride(-2),
            *(t.stride(0) if stacked else 0 for t in (weight.words, weight.zeros, weight.scales)),
            bias_expert, triton.cdiv(inputs // BLOCK4, splits), GROUP=weight.group_size, **common,
        )  # fmt: skip
    else:
        kernels.row8[grid](
            pairs, weight.words, weight.scales, bias, y, partial, counters, experts,
            inputs, outputs, weight.words.stride(-2),
            *(t.stride(0) if stacked else 0 for t in (weight.words, weight.scales)),
            bias_expert, triton.cdiv(inputs // 4, splits), **common,
        )  # fmt: skip
    return y


def few_rows(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    workspace: Workspace,
    plan: LaunchPlan | None = None,
) -> torch.Tensor:
    """y = x @ W + bias; x [rows, in] 16-bit contiguous, on the tensor cores.

    Two rows run on the fp32 units, which is faster there, unless a `plan` asks for tiles.
    """
    inputs, outputs = weight.shape
    rows = x.shape[0]
    if plan is None and isinstance(weight, Packed4):
        if cuda_stream.faster(x.shape[0], 0) and cuda_stream.takes(weight, x):
            return cuda_stream.product(x, weight, bias, workspace)
        if cuda_wide.faster(rows) and cuda_wide.takes(weight, x):
            return cuda_wide.product(x, weight, bias, workspace)
        if cuda_parts.faster(x, 0, workspace) and cuda_parts.takes(weight, x, workspace):
            return cuda_parts.product(x, weight, bias, workspace)
    if plan is None and cuda_row.faster(rows) and cuda_row.takes(weight, x):
        return cuda_row.product(x, weight, bias)
    if plan is None and cuda_ring.faster(rows) and cuda_ring.takes(weight, x):
        return cuda_ring.product(x, weight, bias, workspace)
    if plan is None and isinstance(weight, Packed4) and cuda_sweep.takes(weight, x, workspace):
        return cuda_sweep.product(x, weight, bias, workspace)
    if plan is None and isinstance(weight, Packed4) and cuda_tile.takes(weight, x):
        return cuda_tile.product(x, weight, bias, workspace)
    plan = plan or few_rows_plan(weight, rows)
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    blocks, tiles = triton.cdiv(outputs, plan.columns), triton.cdiv(rows, plan.rows)
    splits = _splits_that_fit(plan.splits, y.numel(), blocks * tiles, workspace)
    common = {
        "BLOCK_M": plan.rows,
        "BLOCK_N": plan.columns,
        "HAS_BIAS": bias is not None,
        "X_BF16": x.dtype == torch.bfloat16,
        "DOT": dot_type(x.dtype),
        "STAGES": plan.stages,
        "num_warps": plan.warps,
    }
    pairs, partial, counters = x.view(torch.int32), workspace.partial(), workspace.counters
    grid = (blocks, splits, tiles)
    if isinstance(weight, Packed4):
        kernels_tile.tile4[grid](
            pairs, weight.words, weight.zeros, weight.scales, bias, y, partial, counters,
            rows, inputs, outputs,
            weight.words.stride(0), weight.zeros.stride(0), weight.scales.stride(0),
            triton.cdiv(inputs // BLOCK4, splits), GROUP=weight.group_size, **common,
        )  # fmt: skip
    else:
        kernels_tile.tile8[grid](
            pairs, weight.words, weight.scales, bias, y, partial, counters,
            rows, inputs, outputs, weight.words.stride(0),
            triton.cdiv(inputs // 4, splits), LANES=plan.lanes, **common,
        )  # fmt: skip
    return y


def gated(
    x: torch.Tensor,
    weight: Packed,
    bias: torch.Tensor | None,
    workspace: Workspace,
    *,
    tanh: bool,
) -> torch.Tensor | None:
    """`linear.multiply_gated` of x [rows, in] 16-bit contiguous."""
    kind = 2 if tanh else 1
    if weight.shape[1] % 16:
        return None
    if isinstance(weight, Packed4):
        rows = x.shape[0]
        ready = cuda_parts.faster(x, kind, workspace)
        if ready and cuda_parts.takes(weight, x, workspace, gated=kind):
            return cuda_parts.product(x, weight, bias, workspace, gated=kind)
        if cuda_stream.faster(rows, kind) and cuda_stream.takes(weight, x, gated=kind):
            return cuda_stream.product(x, weight, bias, workspace, gated=kind)
        if cuda_wide.faster(rows) and cuda_wide.takes(weight, x, gated=kind):
            return cuda_wide.product(x, weight, bias, workspace, gated=kind)
    if cuda_row.faster(x.shape[0]) and cuda_row.takes(weight, x, gated=kind):
        return cuda_row.product(x, weight, bias, gated=kind)
    if cuda_ring.faster(x.shape[0]) and cuda_ring.takes(weight, x):
        return cuda_ring.product(x, weight, bias, workspace, gated=kind)
    return None


def dequantize(weight: Packed, out: torch.Tensor) -> None:
    """Write the weight into `out` [in, out], 16-bit."""
    inputs, outputs = weight.shape
    columns = 128
    blocks = triton.cdiv(outputs, columns)
    if isinstance(weight, Packed4):
        kernels_tile.dequantize4[(blocks, inputs // BLOCK4)](
            weight.words, weight.zeros, weight.scales, out, outputs,
            weight.words.stride(0), weight.zeros.stride(0), weight.scales.stride(0),
            GROUP=weight.group_size, BLOCK_N=columns,
        )  # fmt: skip
    else:
        kernels_tile.dequantize8[(blocks, triton.cdiv(inputs // 4, 16))](
            weight.words, weight.scales, out, inputs, outputs, weight.words.stride(0),
            BLOCK_N=columns, LANES=16,
        )  # fmt: skip


def _splits_that_fit(splits: int, elements: int, tiles: int, workspace: Workspace) -> int:
    """The plan's splits, or fewer where the scratch or its counters are too small for them."""
    if tiles > COUNTERS:
        return 1
    while splits > 1 and 4 * splits * elements > workspace.scratch.numel():
        splits //= 2
    return splits


def dot_type(dtype: torch.dtype) -> tl.dtype:
    if INTERPRETED:
        return tl.float32
    return tl.bfloat16 if dtype == torch.bfloat16 else tl.float16
