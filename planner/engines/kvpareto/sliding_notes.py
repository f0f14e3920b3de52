"""What a one-shot prefill costs the cache of sliding layers, in words.

A sliding layer's buffer holds its window and the tokens that are appended at once. In one shot
that is the whole prompt, so such a model's KV cache is as large as that of full attention.
"""

from collections.abc import Callable

from ...formats.configuration import Configuration
from ...models.spec import Attention, ModelSpec
from ...units import format_bytes, format_tokens
from ...workload import Workload

WORTH = 0.05
"""Part of the cache that chunks must save to be worth a word."""
_CHUNK = 2048
"""What the note compares one shot with: chunks of it cost no time that could be measured."""


def one_shot_note(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    kv_total: Callable[[Configuration], int],
) -> tuple[str, ...]:
    """A sentence where the sliding layers' cache would be smaller in chunks; `kv_total` gives the
    KV bytes of a configuration."""
    windows = [
        mixer.window
        for mixer, _ in spec.mixer_counts
        if isinstance(mixer, Attention) and mixer.window_within(workload.tokens)
    ]
    if config.chunk is not None or config.dynamic_chunk or not windows:
        return ()
    chunk = min(_CHUNK, workload.context)
    whole, cut = kv_total(config), kv_total(config.with_chunk(chunk))
    if whole - cut < WORTH * whole:
        return ()
    return (
        f"in one shot the sliding layers' cache holds the whole prompt, not their window: with "
        f"+pc{chunk} the KV cache takes {format_bytes(cut)} instead of {format_bytes(whole)} "
        f"(window and chunk, {format_tokens(min(w for w in windows if w) + chunk)} tokens a layer)",
    )
