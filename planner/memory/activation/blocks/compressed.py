"""DeepSeek V4: attention over a window of shared keys = values, and compressed entries of the rest.

Taken as eager attention of every query head over the window and the entries; what its indexer
and compressor hold in between is small beside the scores.
"""

from ....models.spec import CompressedAttention
from ..cache import stored_after, stored_before
from ..eager import softmax
from ..forward_step import Attend, Stage
from ..live_tensors import Liveness, rounded


def compressed_bytes(mixer: CompressedAttention, stage: Stage, *, after: bool) -> int:
    """Bytes of the window's storage, which holds keys and values apart, and of the entries."""
    stored = (stored_after if after else stored_before)(mixer.window, stage)
    seen = stage.total if after else stage.past
    width = stage.batch * mixer.head_dim * stage.element
    return 2 * rounded(stored * width) + rounded(_entries(mixer, seen) * width)


def _entries(mixer: CompressedAttention, tokens: int) -> int:
    return tokens // mixer.rate if mixer.rate else 0


def compressed_attention(m: Liveness, mixer: CompressedAttention, stage: Stage) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    query_width = mixer.query_heads * mixer.head_dim
    query = m.take(stage.bytes(query_width))
    turned = m.take(query)
    m.touch(3 * query)  # the rotary turn
    old = compressed_bytes(mixer, stage, after=False)
    new = compressed_bytes(mixer, stage, after=True)
    if stage.attend is not Attend.PACKED:
        m.take(new)
        m.drop(old)
    keys = stored_after(mixer.window, stage) + _entries(mixer, stage.total)
    if stage.attend is Attend.PACKED:
        out = m.take(stage.bytes(query_width))
    else:
        weights = softmax(m, stage.rows * mixer.query_heads * keys, stage, caps=0, sinks=True)
        out = m.take(stage.bytes(query_width))
        m.drop(weights)
    projected = m.take(stage.bytes(stage.hidden))
    m.drop(out, query, turned)
    return projected
