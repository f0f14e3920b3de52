"""Attention written out in transformers' Python: scores of every head, masked, through softmax."""

from ...models.spec import Attention
from .cache import stored_after
from .forward_step import ForwardStep
from .live_tensors import LiveTensors
from .masks import reach
from .sdpa import repeated


def eager(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Take the attention output. The weights are returned beside it: a name in the layer holds
    them until the layer is done, so they are not dropped."""
    copies = repeated(live, mixer, step)
    upcast = 0
    if step.traits.float_scores:
        tokens = step.rows + step.batch * stored_after(reach(mixer), step)
        upcast = live.take(tokens * mixer.query_heads * mixer.head_dim * 4)
    elements = step.rows * mixer.query_heads * stored_after(reach(mixer), step)
    softmax(live, elements, step, caps=2 if mixer.softcap else 0, sinks=mixer.sinks)
    out = live.take(step.bytes(mixer.query_heads * mixer.value_dim))
    ordered = live.take(step.bytes(mixer.query_heads * mixer.value_dim))  # token-major again
    live.drop(out, upcast, *copies)
    return ordered


def softmax(live: LiveTensors, elements: int, step: ForwardStep, *, caps: int, sinks: bool) -> int:
    """Take the attention weights: product, scaled, capped, masked, softmax in float32, cast back.

    With sinks a column of logits is joined on, the maximum subtracted, and the column cut off;
    that softmax stays in the model's dtype, and the scores keep a name meanwhile (gpt-oss).
    """
    element = 4 if step.traits.float_scores else step.element
    scores = live.take(elements * element)
    named = live.take(elements * element) if step.traits.named_scores else 0
    for _ in range(caps + 2):
        product = live.take(elements * element)
        live.drop(scores)
        scores = product
    if step.traits.native_softmax:
        weights = live.take(elements * element)
        live.drop(scores, named)
        return weights
    if sinks:
        joined = live.take(elements * element)
        shifted = live.take(elements * element)
        live.drop(joined)
        weights = live.take(elements * element)
        live.drop(scores, shifted, named)
        return weights
    upcast = live.take(elements * 4) if element != 4 else 0
    weights = live.take(elements * 4)
    live.drop(upcast)
    if element == 4:
        live.drop(scores)
        scores = 0
    if step.element != 4:
        cast = live.take(elements * step.element)
        live.drop(weights)
        weights = cast
    live.drop(scores, named)
    return weights
