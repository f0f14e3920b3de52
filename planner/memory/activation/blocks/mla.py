"""Multi-head latent attention as transformers runs it: latents are cached, keys and values are
made from all of them again in every pass, full width for every query head (DeepSeek-V2/V3)."""

from ....models.spec import Indexer, LatentAttention
from ..eager import softmax
from ..forward_step import Attend, ForwardStep
from ..live_tensors import LiveTensors, rounded
from ..masks import needs_mask
from ..packed_latents import packed_latents
from .norms import norm


def latent_bytes(mixer: LatentAttention, tokens: int, step: ForwardStep) -> tuple[int, ...]:
    """Bytes of the cached latents, rotary keys and, with an indexer, its keys."""
    widths = [mixer.kv_rank, mixer.rope_dim]
    if mixer.indexer is not None:
        widths.append(mixer.indexer.cached_width)
    return tuple(rounded(step.batch * tokens * width * step.element) for width in widths)


def latent_attention(live: LiveTensors, mixer: LatentAttention, step: ForwardStep) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    heads = mixer.query_heads
    head_dim = mixer.nope_dim + mixer.rope_dim
    if mixer.query_rank is None:
        projected = live.take(step.bytes(heads * head_dim))
    else:
        low = live.take(step.bytes(mixer.query_rank))
        normed = norm(live, "rms", step.rows, mixer.query_rank, step)
        live.drop(low)
        projected = live.take(step.bytes(heads * head_dim))
        live.drop(normed)
    compressed = live.take(step.bytes(mixer.kv_rank + mixer.rope_dim))
    latent = norm(live, "rms", step.rows, mixer.kv_rank, step)
    rotated = live.take(step.bytes(heads * mixer.rope_dim))
    live.touch(2 * rotated)  # the products that its halves are joined from
    rotated_key = live.take(step.bytes(mixer.rope_dim))
    _append(live, mixer, step)
    live.drop(latent, rotated_key)
    query = live.take(step.bytes(heads * head_dim))
    if step.attend is Attend.PACKED:
        out = packed_latents(live, mixer, step)
        result = live.take(step.bytes(step.hidden))
        live.drop(out, query, rotated, compressed, projected)
        return result
    expanded = step.batch * step.total * heads * step.element
    both = live.take(expanded * (mixer.nope_dim + mixer.value_dim))  # values stay a view of it
    keys = live.take(expanded * head_dim)
    chosen = _choose(live, mixer.indexer, step) if mixer.indexer is not None else 0
    out = _attend(live, mixer, step)
    live.drop(chosen)
    result = live.take(step.bytes(step.hidden))
    live.drop(out, keys, both, query, rotated, compressed, projected)
    return result


def _choose(live: LiveTensors, indexer: Indexer, step: ForwardStep) -> int:
    """DSA: float32 scores of every indexer head for every pair, and the mask they leave."""
    pairs = step.rows * step.total
    queries = live.take(step.bytes(indexer.heads * indexer.head_dim))
    rotated = live.take(queries)
    products = pairs * indexer.heads * 4
    if step.batch > 1 and step.new > 1:
        # keys of several sequences, broadcast over their queries, are copied for every query
        upcast = live.take(step.rows * indexer.heads * indexer.head_dim * 4)
        live.touch(pairs * indexer.head_dim * 4 + products)
        live.drop(upcast)
    live.touch(2 * products)  # and their weighted copy
    scores = live.take(pairs * 4)
    live.touch(scores)
    live.drop(queries, rotated, scores)
    return live.take(pairs) + live.take(pairs)  # what was chosen; that, and causal


def _append(live: LiveTensors, mixer: LatentAttention, step: ForwardStep) -> None:
    if step.attend is Attend.PACKED:
        return
    old = latent_bytes(mixer, step.past, step)
    new = latent_bytes(mixer, step.total, step)
    for before, after in zip(old, new, strict=True):
        live.take(after)
        live.drop(before)


def _attend(live: LiveTensors, mixer: LatentAttention, step: ForwardStep) -> int:
    pairs = step.batch * step.new * step.total
    out_bytes = step.bytes(mixer.query_heads * mixer.value_dim)
    if step.attend is not Attend.EAGER:
        bias = live.take(pairs * step.element) if mixer.indexer or needs_mask(None, step) else 0
        out = live.take(out_bytes)
        live.drop(bias)
        return out
    # the weights are a layer's local name, as in eager.py
    softmax(live, pairs * mixer.query_heads, step, caps=0, sinks=False)
    out = live.take(out_bytes)
    ordered = live.take(out_bytes)
    live.drop(out)
    return ordered
