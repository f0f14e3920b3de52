"""Triton kernels for what surrounds a layer's matrix products: norm, residual, RoPE, SwiGLU.

Each does in one launch and one pass over memory what the model's own modules do in five to ten.
Arithmetic is float32 inside; results are rounded where the modules round last, so they differ
from them by the roundings in between (a 16-bit unit in the last place).
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from .kernels import early
from .weights.cuda import cuda_norm
from .weights.workspace import Workspace


@triton.jit
def _norm(X, RES, W, OUT, SUM, width, inner, x_outer, x_inner, eps, OFFSET: tl.constexpr,
          ADD: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr):  # fmt: skip
    """One row a program, of X [outer, inner, width] with its strides."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    w = tl.load(W + at, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        tl.extra.cuda.gdc_wait()
    source = X + row // inner * x_outer + row % inner * x_inner
    x = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(RES + row * width + at, mask=inside, other=0.0).to(tl.float32)
        rounded = x.to(SUM.dtype.element_ty)
        tl.store(SUM + row * width + at, rounded, mask=inside)
        x = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    if OFFSET:  # noqa: SIM108 - a branch at compile time
        y = x * scale * (1.0 + w)
    else:
        y = (x * scale).to(OUT.dtype.element_ty).to(tl.float32) * w
    tl.store(OUT + row * width + at, y.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu(GATE, UP, OUT, width, gate_row, up_row, TANH: tl.constexpr, BLOCK: tl.constexpr,
            EARLY: tl.constexpr):  # fmt: skip
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(GATE + row * gate_row + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(UP + row * up_row + at, mask=inside, other=0.0).to(tl.float32)
    if TANH:  # GELU, tanh approximation: tanh(u) = 2 sigmoid(2u) - 1
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        active = gate / (1.0 + tl.exp(-2.0 * inner))
    else:  # SiLU
        active = gate / (1.0 + tl.exp(-gate))
    active = active.to(OUT.dtype.element_ty).to(tl.float32)
    tl.store(OUT + row * width + at, (active * up).to(OUT.dtype.element_ty), mask=inside)


@triton.jit
def _turn(X, OUT, first, heads, step, row, at, inside, low_cos, low_sin, high_cos, high_sin, x_head,
          out_head, HALF: tl.constexpr):  # fmt: skip
    kind = OUT.dtype.element_ty
    for head in range(first, heads, step):
        source = X + head * x_head + at
        low = tl.load(source, mask=inside, other=0.0).to(tl.float32)
        high = tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)
        target = OUT + head * out_head + row + at
        tl.store(target, (low * low_cos - high * low_sin).to(kind), mask=inside)
        tl.store(target + HALF, (high * high_cos + low * high_sin).to(kind), mask=inside)


@triton.jit
def _rope(Q, K, COS, SIN, Q_OUT, K_OUT, tokens, q_heads, k_heads, q_batch, q_token, q_head,
          k_batch, k_token, k_head, cos_batch, HALF: tl.constexpr,
          BLOCK: tl.constexpr, EARLY: tl.constexpr):  # fmt: skip
    """One token a program: Q and K [B, n, H, D] into [B, H, n, D]."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    token = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(1).to(tl.int64)
    part, parts = tl.program_id(2), tl.num_programs(2)
    at = tl.arange(0, BLOCK)
    inside = at < HALF
    angle = batch * cos_batch + token * 2 * HALF + at
    low_cos = tl.load(COS + angle, mask=inside, other=0.0).to(tl.float32)
    low_sin = tl.load(SIN + angle, mask=inside, other=0.0).to(tl.float32)
    high_cos = tl.load(COS + angle + HALF, mask=inside, other=0.0).to(tl.float32)
    high_sin = tl.load(SIN + angle + HALF, mask=inside, other=0.0).to(tl.float32)
    out_head = tokens * 2 * HALF
    row = token * 2 * HALF
    _turn(Q + batch * q_batch + token * q_token, Q_OUT + batch * q_heads * out_head, part, q_heads,
          parts, row, at, inside, low_cos, low_sin, high_cos, high_sin, q_head, out_head,
          HALF)  # fmt: skip
    _turn(K + batch * k_batch + token * k_token, K_OUT + batch * k_heads * out_head, part, k_heads,
          parts, row, at, inside, low_cos, low_sin, high_cos, high_sin, k_head, out_head,
          HALF)  # fmt: skip


@triton.jit
def _angles(POSITIONS, FREQUENCIES, COS, SIN, scaling, HALF: tl.constexpr, BLOCK: tl.constexpr,
            EARLY: tl.constexpr):  # fmt: skip
    """One position a program: cos and sin of its angles, twice over."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < HALF
    position = tl.load(POSITIONS + token).to(tl.float32)
    angle = position * tl.load(FREQUENCIES + at, mask=inside, other=0.0)
    cos = (tl.cos(angle) * scaling).to(COS.dtype.element_ty)
    sin = (tl.sin(angle) * scaling).to(SIN.dtype.element_ty)
    row = token * 2 * HALF + at
    for half in tl.static_range(2):
        tl.store(COS + row + half * HALF, cos, mask=inside)
        tl.store(SIN + row + half * HALF, sin, mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, offset: bool = False) -> Tensor:
    """x / rms(x) * weight over the last axis; `offset` multiplies by 1 + weight (Gemma)."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x = x if _strides(x) else x.contiguous()
    _launch_norm(x, x, weight, out, x, eps, offset, add=False)
    return out


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    *,
    offset: bool = False,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """(norm(x + residual), x + residual), shapes as x; the sum takes the residual's place with
    `in_place`, where that is contiguous."""
    rows, residual = x.contiguous().view(-1, x.shape[-1]), residual.contiguous()
    out, total = torch.empty_like(rows), residual if in_place else torch.empty_like(rows)
    _launch_norm(rows, residual, weight, out, total, eps, offset, add=True)
    return out.view(x.shape), total.view(x.shape)


def whole_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    workspace: Workspace | None,
    *,
    offset: bool,
    in_place: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """`add_rms_norm`, or without a residual `rms_norm` and x, whose result the workspace also holds
    in whole numbers, for the product that follows; None where no product would look for them."""
    if workspace is None:
        return None
    rows = x.contiguous().view(-1, x.shape[-1])
    if not cuda_norm.takes(rows, weight):
        return None
    other = None if residual is None else residual.contiguous().view_as(rows)
    both = cuda_norm.norm(rows, other, weight, eps, workspace, offset=offset, in_place=in_place)
    return None if both is None else (both[0].view(x.shape), both[1].view(x.shape))


def _strides(x: Tensor) -> tuple[int, int, int] | None:
    """Rows [outer, inner, width] that x is without a copy, as (inner, outer stride, inner stride):
    queries of several sequences lie beside their keys and values. None where it has more axes."""
    if x.stride(-1) != 1:
        return None
    axes: list[tuple[int, int]] = []
    for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True):
        if axes and axes[-1][1] == size * stride:
            axes[-1] = axes[-1][0] * size, stride
        elif size > 1:
            axes.append((size, stride))
    if len(axes) > 2:
        return None
    (_, outer), (inner, apart) = (*axes, *[(1, 0)] * (2 - len(axes)))
    return inner, outer, apart


def _launch_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    out: Tensor,
    total: Tensor,
    eps: float,
    offset: bool,
    *,
    add: bool,
) -> None:
    width, strides = x.shape[-1], _strides(x)
    assert strides is not None
    block = triton.next_power_of_2(width)
    warps = 4 if block <= 1024 else 8
    _norm[(x.numel() // width,)](
        x, residual, weight, out, total, width, *strides, eps,
        OFFSET=offset, ADD=add, BLOCK=block, num_warps=warps, **early.options(x.device),
    )  # fmt: skip


def swiglu(gate: Tensor, up: Tensor, *, tanh: bool = False) -> Tensor:
    """silu(gate) * up, or with the tanh-approximated GELU; last axis dense, rows may be strided."""
    width = gate.shape[-1]
    gates, ups = gate.flatten(0, -2), up.flatten(0, -2)
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    block = min(1024, triton.next_power_of_2(width))
    _swiglu[(gates.shape[0], triton.cdiv(width, block))](
        gates, ups, out, width, gates.stride(0), ups.stride(0), TANH=tanh, BLOCK=block,
        **early.options(gate.device),
    )  # fmt: skip
    return out


def rope(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding, halves turned against each other: [B, n, H, D] -> [B, H, n, D], both.

    cos, sin [B or 1, n, D]. The last axis of query and key is dense; the others may be strided.
    """
    batch, tokens, heads, dim = query.shape
    out = torch.empty(batch, heads, tokens, dim, dtype=query.dtype, device=query.device)
    key_out = torch.empty(batch, key.shape[2], tokens, dim, dtype=key.dtype, device=key.device)
    cos, sin = cos.contiguous(), sin.contiguous()
    parts = min(max(heads, key.shape[2]), 16) if tokens * batch < 256 else 1
    _rope[(tokens, batch, parts)](
        query, key, cos, sin, out, key_out, tokens, heads, key.shape[2],
        *query.stride()[:3], *key.stride()[:3], cos.stride(0) if cos.shape[0] > 1 else 0,
        HALF=dim // 2, BLOCK=triton.next_power_of_2(dim // 2), num_warps=1,
        **early.options(query.device),
    )  # fmt: skip
    return out, key_out


def rope_keys(key: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rope` of keys alone, [B, n, H, D] -> [B, H, n, D]."""
    return rope(key[:, :, :0], key, cos, sin)[1]


def angles(
    positions: Tensor, frequencies: Tensor, scaling: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """RoPE's (cos, sin) [B, n, 2 f] times `scaling`, of positions [B, n] and frequencies [f]."""
    half = frequencies.shape[0]
    cos = torch.empty(*positions.shape, 2 * half, dtype=dtype, device=positions.device)
    sin = torch.empty_like(cos)
    _angles[(positions.numel(),)](
        positions.contiguous(), frequencies.float(), cos, sin, float(scaling), HALF=half,
        BLOCK=triton.next_power_of_2(half), num_warps=1, **early.options(positions.device),
    )  # fmt: skip
    return cos, sin
