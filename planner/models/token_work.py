"""What a token passes in a model: weights, pairs of queries and keys, elements that it caches.

Counted from the weight tensors and the mixers of a ModelSpec, whoever runs it: the numerators of
every roofline. A multiply and an add are two operations. Only the text tower counts: a plan is for
text.
"""

from collections import Counter

from ..light_dataclass import dataclass
from .spec import (
    Attention,
    CompressedAttention,
    LatentAttention,
    Mixer,
    ModelSpec,
    MoEFFN,
    Part,
    Role,
)


@dataclass(frozen=True, slots=True)
class AttentionWork:
    """`layers` layers of one kind. `reach`: tokens a query sees at most; None = all before it."""

    layers: int
    query_heads: int
    flops_per_pair: int
    """Operations for one query and one key over all heads: q·k and p·v."""
    cache_elements: int
    """Elements cached for each token, K and V of all KV heads."""
    group: int
    """Query heads that share a KV head."""
    reach: int | None
    mixer: Mixer


@dataclass(frozen=True, slots=True)
class TokenWork:
    """Weights are counted, so two operations each."""

    linear: int
    """Of dense matrix products that every token passes."""
    matrices: int
    """Those products, the output head aside."""
    expert: int
    """Of all routed experts."""
    expert_share: float
    """The part of the experts that one token passes; 0 without experts."""
    head: int
    """Of the output head (tied or not)."""
    embedding: int
    """Of an embedding that is only looked up: stored, never streamed."""
    attention: tuple[AttentionWork, ...]


def token_work(spec: ModelSpec) -> TokenWork:
    """Count a model's text tower."""
    weights: Counter[Role] = Counter()
    matrices = 0
    for group in spec.tensors:
        if group.part is Part.TEXT:
            weights[group.role] += group.parameters
            matrices += group.count if group.role in (Role.LINEAR, Role.ROUTER) else 0
    head, embedding = weights[Role.LM_HEAD], weights[Role.EMBEDDING]
    if spec.tied_embeddings and not head:
        head, embedding = spec.vocab * spec.hidden, max(0, embedding - spec.vocab * spec.hidden)
    routed = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    experts = sum(ffn.experts for ffn in routed)
    kinds = [work for mixer, count in spec.mixer_counts if (work := _attention(mixer, count))]
    return TokenWork(
        linear=weights[Role.LINEAR] + weights[Role.ROUTER],
        matrices=matrices,
        expert=weights[Role.EXPERT],
        expert_share=sum(ffn.top_k for ffn in routed) / experts if experts else 0.0,
        head=head,
        embedding=embedding,
        attention=tuple(kinds),
    )


def _attention(mixer: Mixer, count: int) -> AttentionWork | None:
    if isinstance(mixer, Attention):
        cached = 0 if mixer.shares_kv_with is not None else mixer.head_dim + mixer.value_dim
        return AttentionWork(
            layers=count,
            query_heads=mixer.query_heads,
            flops_per_pair=2 * mixer.query_heads * (mixer.head_dim + mixer.value_dim),
            cache_elements=mixer.kv_heads * cached,
            group=max(1, mixer.query_heads // max(1, mixer.kv_heads)),
            reach=mixer.window or mixer.local_chunk,
            mixer=mixer,
        )
    if isinstance(mixer, LatentAttention):
        wide = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
        return AttentionWork(
            layers=count,
            query_heads=mixer.query_heads,
            flops_per_pair=2 * mixer.query_heads * wide,
            cache_elements=mixer.kv_rank + mixer.rope_dim,
            group=mixer.query_heads,
            reach=mixer.indexer.top_k if mixer.indexer else mixer.window,
            mixer=mixer,
        )
    if isinstance(mixer, CompressedAttention):
        chosen = mixer.indexer.top_k if mixer.indexer else 0
        return AttentionWork(
            layers=count,
            query_heads=mixer.query_heads,
            flops_per_pair=4 * mixer.query_heads * mixer.head_dim,
            cache_elements=mixer.head_dim,
            group=mixer.query_heads,
            reach=mixer.window + chosen,
            mixer=mixer,
        )
    return None
