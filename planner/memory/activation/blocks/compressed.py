"""DeepSeek V4: attention over a window of shared keys = values, and compressed entries of the rest.

Taken as eager attention of every query head over the window and the entries; what its indexer
and compressor hold in between is small beside the scores.
"""

from ....models.spec import CompressedAttention
from ..cache import stored_after, stored_before
from ..eager import softmax
from ..forward_step import Attend, ForwardStep
from ..live_tensors import LiveTensors, rounded


def compressed_bytes(mixer: CompressedAttention, step: ForwardStep, *, after: bool) -> int:
    """Bytes of the window's storage, which holds keys and values apart, and of the entries."""
    stored = (stored_after if after else stored_before)(mixer.window, step)
    seen = step.total if after else step.past
    width = step.batch * mixer.head_dim * step.element
    return 2 * rounded(stored * width) + rounded(_entries(mixer, seen) * width)


def _entries(mixer: CompressedAttention, tokens: int) -> int:
    return tokens // mixer.rate if mixer.rate else 0


def compressed_attention(live: LiveTensors, mixer: CompressedAttention, step: ForwardStep) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    query_width = mixer.query_heads * mixer.head_dim
    query = live.take(step.bytes(query_width))
    rotated = live.take(query)
    live.touch(3 * query)  # the rotary embedding
    old = compressed_bytes(mixer, step, after=False)
    new = compressed_bytes(mixer, step, after=True)
    if step.attend is not Attend.PACKED:
        live.take(new)
        live.drop(old)
    keys = stored_after(mixer.window, step) + _entries(mixer, step.total)
    if step.attend is Attend.PACKED:
        out = live.take(step.bytes(query_width))
    else:
        weights = softmax(live, step.rows * mixer.query_heads * keys, step, caps=0, sinks=True)
        out = live.take(step.bytes(query_width))
        live.drop(weights)
    projected = live.take(step.bytes(step.hidden))
    live.drop(out, query, rotated)
    return projected
