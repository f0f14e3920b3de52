"""Attention written out in transformers' Python: scores of every head, masked, through softmax."""

from ...models.spec import Attention
from .cache import stored_after
from .forward_step import Stage
from .live_tensors import Liveness
from .masks import reach
from .sdpa import repeated


def eager(m: Liveness, mixer: Attention, stage: Stage) -> int:
    """Take the attention output. The weights are returned beside it: a name in the layer holds
    them until the layer is done, so they are not dropped."""
    copies = repeated(m, mixer, stage)
    upcast = 0
    if stage.habits.float_scores:
        tokens = stage.rows + stage.batch * stored_after(reach(mixer), stage)
        upcast = m.take(tokens * mixer.query_heads * mixer.head_dim * 4)
    elements = stage.rows * mixer.query_heads * stored_after(reach(mixer), stage)
    softmax(m, elements, stage, caps=2 if mixer.softcap else 0, sinks=mixer.sinks)
    out = m.take(stage.bytes(mixer.query_heads * mixer.value_dim))
    ordered = m.take(stage.bytes(mixer.query_heads * mixer.value_dim))  # token-major again
    m.drop(out, upcast, *copies)
    return ordered


def softmax(m: Liveness, elements: int, stage: Stage, *, caps: int, sinks: bool) -> int:
    """Take the attention weights: product, scaled, capped, masked, softmax in float32, cast back.

    With sinks a column of logits is joined on, the maximum subtracted, and the column cut off;
    that softmax stays in the model's dtype, and the scores keep a name meanwhile (gpt-oss).
    """
    element = 4 if stage.habits.float_scores else stage.element
    scores = m.take(elements * element)
    named = m.take(elements * element) if stage.habits.named_scores else 0
    for _ in range(caps + 2):
        step = m.take(elements * element)
        m.drop(scores)
        scores = step
    if stage.habits.native_softmax:
        weights = m.take(elements * element)
        m.drop(scores, named)
        return weights
    if sinks:
        joined = m.take(elements * element)
        shifted = m.take(elements * element)
        m.drop(joined)
        weights = m.take(elements * element)
        m.drop(scores, shifted, named)
        return weights
    upcast = m.take(elements * 4) if element != 4 else 0
    weights = m.take(elements * 4)
    m.drop(upcast)
    if element == 4:
        m.drop(scores)
        scores = 0
    if stage.element != 4:
        cast = m.take(elements * stage.element)
        m.drop(weights)
        weights = cast
    m.drop(scores, named)
    return weights
