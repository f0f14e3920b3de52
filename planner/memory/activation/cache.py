"""How transformers' caches grow: by concatenation, old and new alive together, layer by layer.

A sliding layer keeps a *view* of its last window - 1 tokens, so the storage behind it is all of
the last concatenation until the next one replaces it: after a one-shot prefill that is the whole
prompt. (transformers.cache_utils: DynamicLayer, DynamicSlidingWindowLayer.)
"""

from dataclasses import replace

from ...models.spec import Attention
from .forward_step import Attend, ForwardStep
from .live_tensors import LiveTensors, rounded


def stored_before(window: int | None, step: ForwardStep) -> int:
    """Tokens in the storage that a layer holds when the stage begins."""
    if step.past == 0 or window is None or window == 1:
        return step.past
    return min(window - 1, step.past - step.previous) + step.previous


def stored_after(window: int | None, step: ForwardStep) -> int:
    """Tokens in the storage after the stage, which are those that its queries attend to."""
    # A window of one token slices nothing off: `[-1 + 1 :]` is the whole tensor.
    if window is None or window == 1:
        return step.total
    return min(window - 1, step.past) + step.new


def as_cached(mixer: Attention) -> Attention:
    """The mixer with as many KV heads as the cache holds: Falcon's groups repeat theirs first."""
    if mixer.expanded_heads is None:
        return mixer
    return replace(mixer, kv_heads=mixer.expanded_heads, expanded_heads=None)


def storage_bytes(mixer: Attention, tokens: int, step: ForwardStep) -> tuple[int, int]:
    """(keys, values): bytes of a storage of `tokens` tokens, as the allocator counts them."""
    if mixer.shares_kv_with is not None:
        return 0, 0
    per_channel = step.batch * mixer.kv_heads * tokens * step.element
    return rounded(per_channel * mixer.head_dim), rounded(per_channel * mixer.value_dim)


def append(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Bring the cache up to date; returns the bytes that attention holds beside the cache."""
    if step.attend is Attend.PACKED:
        return 0
    if step.attend is Attend.DEQUANTIZED:
        return _append_quantized(live, mixer, step)
    window = mixer.window or mixer.local_chunk
    old_keys, old_values = storage_bytes(mixer, stored_before(window, step), step)
    new_keys, new_values = storage_bytes(mixer, stored_after(window, step), step)
    live.take(new_keys)
    live.drop(0 if window else old_keys)
    live.take(new_values)
    live.drop(old_values, old_keys if window else 0)
    return 0


def _append_quantized(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """QuantizedCache: everything dequantized, the new tokens joined on, and, when the 16-bit
    tail is full, everything quantized anew. The first pass attends to what it was given."""
    new_keys, new_values = storage_bytes(mixer, step.new, step)
    if not step.past:
        live.touch(new_keys + new_keys // 2)  # a contiguous copy and its codes
        return live.take(new_keys) + live.take(new_values)
    keys, values = storage_bytes(mixer, step.past, step)
    held = live.take(keys) + live.take(values)  # dequantized
    joined = live.take(keys + new_keys) + live.take(values + new_values)
    if step.new > 1:
        live.touch(2 * (keys + new_keys))  # scaled and rounded copies on the way to codes
    live.drop(held)
    return joined
