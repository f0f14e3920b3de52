"""What torch's scaled-dot-product attention allocates on a CUDA device, played on the meta device.

On the CPU and on meta, torch picks other kernels than on a GPU, so the real call would count
scores that flash attention never writes. This stand-in allocates what the CUDA call does: a
boolean mask becomes an additive one in the query's dtype; the output lies token-major. A head
too wide for flash attention is summed up in float32; too few key heads take the math path.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

FLASH_HEAD_DIM = 256


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Shapes: query (B, H, Q, D), key (B, Hkv, T, D), value (B, Hkv, T, Dv) -> (B, H, Q, Dv)."""
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        zero = torch.zeros((), dtype=query.dtype, device=query.device)
        attn_mask = torch.where(attn_mask, zero, float("-inf"))
    if query.shape[1] != key.shape[1] and (not enable_gqa or attn_mask is not None):
        return _math(query, key, value)
    batch, heads, tokens, _ = query.shape
    out = query.new_empty((batch, tokens, heads, value.shape[-1]))
    if query.shape[-1] > FLASH_HEAD_DIM:
        out.float()  # the memory-efficient kernel sums wide heads up in float32
    return out.transpose(1, 2)


def _math(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The math path, as an H200 was seen to allocate: float32 scores, their softmax, and one
    boolean a score. No fused kernel spreads keys over query heads by itself."""
    query, key, value = (x.float() for x in (query, key, value))
    query, key = query * 1.0, key * 1.0
    batch, heads, tokens, _ = query.shape
    scores = query.new_empty((batch, heads, tokens, key.shape[2]))
    weights = torch.empty_like(scores)
    torch.empty_like(scores, dtype=torch.bool)
    del scores
    out = query.new_empty((batch, heads, tokens, value.shape[-1]))
    del weights
    return out.bfloat16()


@contextmanager
def cuda_attention() -> Iterator[None]:
    """Replaces torch.nn.functional.scaled_dot_product_attention inside the block."""
    functional: Any = torch.nn.functional
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
