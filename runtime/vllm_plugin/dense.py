"""Attention of prompts over dense keys and values: the FlashAttention that vLLM brings."""

import functools
from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backends import fa_utils

_TILE = 128  # rows that a block multiplies at once: tokens times query heads of a KV head


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
    if version == 3:
        new, query_heads, heads = query.shape[0], query.shape[1], key.shape[1]
        more["num_splits"] = splits(new, query_heads, heads, _processors(query.device))
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


def splits(new: int, query_heads: int, heads: int, processors: int) -> int:
    """Into how many parts FlashAttention 3 cuts the keys: 1 where `new` tokens fill the card.

    Each part keeps a float32 copy of all tokens' results, in memory that vLLM has not counted.
    Left to itself, the library looks at the longest request alone: many short prompts at once are
    cut as one of them would be, and a step of 8,192 tokens took 80 MiB and more.
    """
    tiles = heads * -(-new * query_heads // (heads * _TILE))
    return max(1, processors // tiles)


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
