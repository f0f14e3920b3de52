"""Attention of prompts over dense keys and values: the FlashAttention that vLLM brings."""

from typing import Any

from torch import Tensor
from vllm.v1.attention.backends import fa_utils


def dense_version(head_size: int, sinks: bool) -> int | None:
    """Which FlashAttention takes heads of this size; None where none does."""
    if not fa_utils.is_flash_attn_varlen_func_available():
        return None
    version = fa_utils.get_flash_attn_version(head_size=head_size)
    if version not in (2, 3) or (sinks and version != 3) or head_size > 256 or head_size % 8:
        return None
    return int(version)


def dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor,
    starts: Tensor,
    longest_query: int,
    longest: int,
    *,
    scaling: float,
    softcap: float,
    window: int,
    sinks: Tensor | None,
    version: int | None,
) -> Tensor:
    """Causal attention of requests one after the other: query [tokens, query heads, D] ->
    the same shape; key, value [>= tokens, heads, D]. `window` 0: all."""
    more: dict[str, Any] = {} if sinks is None else {"s_aux": sinks}
    mixed: Tensor = fa_utils.flash_attn_varlen_func(
        q=query,
        k=key,
        v=value,
        max_seqlen_q=longest_query,
        cu_seqlens_q=query_starts,
        max_seqlen_k=longest,
        cu_seqlens_k=starts,
        softmax_scale=scaling,
        causal=True,
        window_size=[window - 1, 0] if window else None,
        softcap=float(softcap),
        fa_version=version,
        **more,
    )
    return mixed
