"""Multi-head latent attention as transformers runs it: latents are cached, keys and values are
made from all of them again in every pass, full width for every query head (DeepSeek-V2/V3)."""

from ....models.spec import Indexer, LatentAttention
from ..eager import softmax
from ..forward_step import Attend, Stage
from ..live_tensors import Liveness, rounded
from ..masks import needs_mask
from .norms import norm


def latent_bytes(mixer: LatentAttention, tokens: int, stage: Stage) -> tuple[int, ...]:
    """Bytes of the cached latents, rotary keys and, with an indexer, its keys."""
    widths = [mixer.kv_rank, mixer.rope_dim]
    if mixer.indexer is not None:
        widths.append(mixer.indexer.cached_width)
    return tuple(rounded(stage.batch * tokens * width * stage.element) for width in widths)


def latent_attention(m: Liveness, mixer: LatentAttention, stage: Stage) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    heads = mixer.query_heads
    head_dim = mixer.nope_dim + mixer.rope_dim
    if mixer.query_rank is None:
        projected = m.take(stage.bytes(heads * head_dim))
    else:
        low = m.take(stage.bytes(mixer.query_rank))
        normed = norm(m, "rms", stage.rows, mixer.query_rank, stage)
        m.drop(low)
        projected = m.take(stage.bytes(heads * head_dim))
        m.drop(normed)
    compressed = m.take(stage.bytes(mixer.kv_rank + mixer.rope_dim))
    latent = norm(m, "rms", stage.rows, mixer.kv_rank, stage)
    turned = m.take(stage.bytes(heads * mixer.rope_dim))
    m.touch(2 * turned)  # the products that its halves are joined from
    turned_key = m.take(stage.bytes(mixer.rope_dim))
    _append(m, mixer, stage)
    m.drop(latent, turned_key)
    query = m.take(stage.bytes(heads * head_dim))
    seen = stage.new if stage.attend is Attend.PACKED else stage.total
    expanded = stage.batch * seen * heads * stage.element
    both = m.take(expanded * (mixer.nope_dim + mixer.value_dim))  # values stay a view of it
    keys = m.take(expanded * head_dim)
    chosen = _choose(m, mixer.indexer, stage) if mixer.indexer is not None else 0
    out = _attend(m, mixer, stage)
    m.drop(chosen)
    result = m.take(stage.bytes(stage.hidden))
    m.drop(out, keys, both, query, turned, compressed, projected)
    return result


def _choose(m: Liveness, indexer: Indexer, stage: Stage) -> int:
    """DSA: float32 scores of every indexer head for every pair, and the mask they leave."""
    pairs = stage.rows * stage.total
    queries = m.take(stage.bytes(indexer.heads * indexer.head_dim))
    turned = m.take(queries)
    products = pairs * indexer.heads * 4
    if stage.batch > 1 and stage.new > 1:
        # keys of several sequences, broadcast over their queries, are copied for every query
        upcast = m.take(stage.rows * indexer.heads * indexer.head_dim * 4)
        m.touch(pairs * indexer.head_dim * 4 + products)
        m.drop(upcast)
    m.touch(2 * products)  # and their weighted copy
    scores = m.take(pairs * 4)
    m.touch(scores)
    m.drop(queries, turned, scores)
    return m.take(pairs) + m.take(pairs)  # what was chosen; that, and causal


def _append(m: Liveness, mixer: LatentAttention, stage: Stage) -> None:
    if stage.attend is Attend.PACKED:
        return
    old = latent_bytes(mixer, stage.past, stage)
    new = latent_bytes(mixer, stage.total, stage)
    for before, after in zip(old, new, strict=True):
        m.take(after)
        m.drop(before)


def _attend(m: Liveness, mixer: LatentAttention, stage: Stage) -> int:
    pairs = stage.batch * stage.new * stage.total
    out_bytes = stage.bytes(mixer.query_heads * mixer.value_dim)
    if stage.attend is not Attend.EAGER:
        bias = m.take(pairs * stage.element) if mixer.indexer or needs_mask(None, stage) else 0
        out = m.take(out_bytes)
        m.drop(bias)
        return out
    # the weights are a layer's local name, as in eager.py
    softmax(m, pairs * mixer.query_heads, stage, caps=0, sinks=False)
    out = m.take(out_bytes)
    ordered = m.take(out_bytes)
    m.drop(out)
    return ordered
