"""One decode step's RoPE and quantize-and-append in one launch.

Apart they are three launches of a microsecond or two each, every layer. A program takes one head
of one sequence: queries are turned; keys are turned, rounded to the model's 16 bits as the
separate kernels do, and packed; values are packed. Arithmetic is that of fused_kernels.py and
triton_append.py, operation by operation. Formats whose tokens each have pairs of their own, and
stream freely: no residual, no sinks, no block of tokens.
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...planner.formats.configuration import Granularity
from ..cache.layer_state import LayerState, SideState
from . import early
from .triton_codes import _round


@triton.jit
def _pack_head(x, VALUES, PAIRS, row, BITS: tl.constexpr, DIM: tl.constexpr,
               GROUPS: tl.constexpr):  # fmt: skip
    """Codes and pairs of one token's head x [DIM], float32, to `row` of the buffers."""
    levels: tl.constexpr = 2**BITS - 1
    per: tl.constexpr = 8 // BITS
    x = tl.reshape(x, [GROUPS, DIM // GROUPS])
    low, high = tl.min(x, 1)[:, None], tl.max(x, 1)[:, None]
    offset = tl.minimum(tl.maximum(low, -65504.0), 65504.0).to(tl.float16)
    scale = tl.minimum(tl.div_rn(high - low, tl.full([1], levels, tl.float32)), 65504.0)
    scale = scale.to(tl.float16)
    wide = scale.to(tl.float32)
    inverse = tl.where(
        wide > 0, tl.div_rn(tl.full([1], 1, tl.float32), tl.where(wide > 0, wide, 1.0)), 0.0
    )
    codes = _round((x - offset.to(tl.float32)) * inverse)
    codes = tl.minimum(tl.maximum(codes, 0.0), levels).to(tl.int32)
    codes = tl.reshape(codes, [DIM // per, per]) << (tl.arange(0, per) * BITS)[None, :]
    tl.store(VALUES + row * (DIM // per) + tl.arange(0, DIM // per), tl.sum(codes, 1).to(tl.uint8))
    word = offset.to(tl.int16, bitcast=True).to(tl.int32) << 16
    word = word | (scale.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF)
    tl.store(PAIRS + row * GROUPS + tl.arange(0, GROUPS)[:, None], word)


@triton.jit
def _turned(X, COS, SIN, DIM: tl.constexpr):
    """x [DIM] at X with its halves turned against each other, float32."""
    at = tl.arange(0, DIM)
    x = tl.load(X + at).to(tl.float32)
    other = tl.load(X + (at + DIM // 2) % DIM).to(tl.float32)
    other = tl.where(at < DIM // 2, -other, other)
    return x * tl.load(COS + at).to(tl.float32) + other * tl.load(SIN + at).to(tl.float32)


@triton.jit
def _step(Q, K, V, COS, SIN, OUT, K_VALUES, K_PAIRS, V_VALUES, V_PAIRS, CLOCK,
          heads, kv_heads, q_batch, q_head, k_batch, k_head, v_batch, v_head, cos_batch,
          k_capacity, v_capacity, DIM: tl.constexpr, K_BITS: tl.constexpr,
          K_GROUPS: tl.constexpr, V_BITS: tl.constexpr, V_GROUPS: tl.constexpr,
          EARLY: tl.constexpr):  # fmt: skip
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    batch = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    cos, sin = COS + batch * cos_batch, SIN + batch * cos_batch
    kind = OUT.dtype.element_ty
    if head < heads:
        x = _turned(Q + batch * q_batch + head * q_head, cos, sin, DIM)
        tl.store(OUT + (batch * heads + head) * DIM + tl.arange(0, DIM), x.to(kind))
    elif head < heads + kv_heads:
        head -= heads
        x = _turned(K + batch * k_batch + head * k_head, cos, sin, DIM).to(kind).to(tl.float32)
        row = (batch * kv_heads + head) * k_capacity + (tl.load(CLOCK) - 1) % k_capacity
        _pack_head(x, K_VALUES, K_PAIRS, row, K_BITS, DIM, K_GROUPS)
    else:
        head -= heads + kv_heads
        x = tl.load(V + batch * v_batch + head * v_head + tl.arange(0, DIM)).to(tl.float32)
        row = (batch * kv_heads + head) * v_capacity + (tl.load(CLOCK) - 1) % v_capacity
        _pack_head(x, V_VALUES, V_PAIRS, row, V_BITS, DIM, V_GROUPS)


def supports(state: LayerState, dtype: torch.dtype) -> bool:
    """Whether `rope_append` takes this layer: see the module's words; heads of 2^n channels."""
    dim = state.key.dim
    return (
        dtype in (torch.bfloat16, torch.float16)
        and not (state.rotated or state.latent)
        and state.value.dim == dim
        and dim & (dim - 1) == 0
        and all(_streams(side) for side in (state.key, state.value))
    )


def _streams(side: SideState) -> bool:
    form = side.form
    return (
        form.bits in (2, 4, 8)  # whole codes a byte
        and not form.table
        and not form.affine
        and form.clip == 100
        and form.granularity is Granularity.PER_TOKEN
        and side.residual is None
        and side.sinks is None
        and side.mean is None
        and form.buffered == 0
        and side.dim % form.group_width(side.dim) == 0
        and form.groups(side.dim) & (form.groups(side.dim) - 1) == 0
    )


def rope_append(
    state: LayerState, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Turn one token's queries and keys [B, 1, H, D], append keys and values, which the clock
    already counts; the turned queries [B, H, 1, D]. Last axes are dense; `supports` must hold."""
    batch, _, heads, dim = query.shape
    kv_heads = key.shape[2]
    out = torch.empty(batch, heads, 1, dim, dtype=query.dtype, device=query.device)
    cos, sin = cos.contiguous(), sin.contiguous()
    sides = [(side.values, _words(side)) for side in (state.key, state.value)]
    _step[(batch, heads + 2 * kv_heads)](
        query, key, value, cos, sin, out, *sides[0], *sides[1], state.clock.device,
        heads, kv_heads,
        *(stride for x in (query, key, value) for stride in (x.stride(0), x.stride(2))),
        cos.stride(0) if cos.shape[0] > 1 else 0,
        state.key.values.shape[2], state.value.values.shape[2], DIM=dim,
        K_BITS=state.key.form.bits, K_GROUPS=state.key.form.groups(dim),
        V_BITS=state.value.form.bits, V_GROUPS=state.value.form.groups(dim),
        num_warps=1,
        enable_fp_fusion=False,  # a fused multiply-add would round ties unlike the reference
        **early.options(query.device),
    )  # fmt: skip
    return out


def _words(side: SideState) -> Tensor:
    """Pairs (scale, offset) as 32-bit words."""
    assert side.scale is not None  # quantized sides have pairs
    return side.scale.view(torch.int32)
