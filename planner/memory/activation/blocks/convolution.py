"""The short causal convolution before a scan, in transformers' torch code since 5.20."""

from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors


def convolved(live: LiveTensors, channels: int, kernel: int, step: ForwardStep) -> int:
    """Take the activated outputs: inputs with those that are carried over are joined, and padded
    at both ends."""
    tokens = step.new + (kernel if step.past else 0)
    single = step.new == 1 and step.past
    joined = live.take(step.batch * channels * tokens * step.element) if step.past else 0
    padded = tokens + 1 - kernel if single else tokens + kernel - 1
    wide = live.take(step.batch * channels * padded * step.element)
    active = live.take(step.batch * channels * (1 if single else tokens) * step.element)
    live.drop(joined, wide)
    return active
