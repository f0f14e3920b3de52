"""K-smoothing for a stream: subtract one frozen mean from every key of a sequence.

A head's keys share a large offset in some channels; it widens every group's range and eats the
codes. Subtracting one vector m from all keys of a sequence and head changes each score by q·m,
the same for every key a query sees, and softmax does not see a constant. That holds only while
all keys a query meets have the same m: so m is frozen, and what is kept in 16 bits (residual
window, sinks) is smoothed too.

m is the mean of the sequence's first `SMOOTHING_TOKENS` real tokens, as far as the first append
that brings any of them goes. With chunks of at least that many tokens (64, the smallest chunk of
the space) m does not depend on how the prompt was cut; with a smaller first append it is the mean
of fewer tokens: still invisible to softmax, only less typical of what follows. Keys are smoothed
after RoPE, so an offset in fast-turning channels averages out of m and is left in the keys.
"""

import torch
from torch import Tensor

from .layer_state import Clock

SMOOTHING_TOKENS = 64


def freeze_mean(mean: Tensor, key: Tensor, clock: Clock) -> None:
    """Set `mean`, float32 [B, H, D], for sequences whose first real tokens are in `key`.

    `key` is [B, H, n, D] as appended (the clock counts it already). A sequence whose mean is
    frozen, or that is all padding so far, is left as it is. Everything that depends on the
    cache's length is read on the device, so this may be captured in a CUDA graph.
    """
    tokens = key.shape[2]
    first = clock.starts - (clock.device - tokens)  # of each sequence's real tokens, in `key`
    if not clock.padded:
        key = key[:, :, :SMOOTHING_TOKENS]
    places = torch.arange(key.shape[2], device=key.device)[None, :]
    taken = (places >= first[:, None]) & (places < first[:, None] + SMOOTHING_TOKENS)
    arrives = (first >= 0) & (first < tokens)
    weights = taken / taken.sum(-1, keepdim=True).clamp(min=1)
    means = torch.einsum("bn,bhnd->bhd", weights, key.float())
    mean.copy_(torch.where(arrives[:, None, None], means, mean))


def smooth(key: Tensor, mean: Tensor) -> Tensor:
    """`key` [B, H, n, D] minus the frozen mean, in the dtype of `key`."""
    return (key.float() - mean[:, :, None]).to(key.dtype)
