"""What a model's tokens cost vLLM: weights passed, pairs seen, bytes kept and moved.

Counted from the tensors and the layers of a ModelSpec. A multiply and an add are two operations.
"""

from collections import Counter

from ...light_dataclass import dataclass
from ...models.spec import (
    Attention,
    DenseFFN,
    LatentAttention,
    Layer,
    Mixer,
    ModelSpec,
    MoEFFN,
    Part,
    RecurrentState,
    Role,
)


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """`layers` layers of one kind. `reach`: tokens a query sees at most; None: all before it.

    `pair_flops`: operations of one query and one key over all heads; `cached`: elements of a
    token's keys and values; `heads`: KV heads, which cards share (1: each card has all of it).
    """

    layers: int
    pair_flops: int
    cached: int
    heads: int
    reach: int | None
    latent: bool


@dataclass(frozen=True, slots=True)
class VllmWork:
    """`linear`, `expert`, `head`, `embedding`: weights of dense products, of all experts, of the
    output head, and of an embedding that is only looked up. `expert_share`: part of the experts
    that a token passes. `state`: elements of a sequence's recurrent states. `moved`: elements of
    activations that a token reads and writes."""

    layers: int
    routed_layers: int
    recurrent_layers: int
    linear: int
    expert: int
    head: int
    embedding: int
    expert_share: float
    state: int
    moved: int
    attention: tuple[AttentionKind, ...]


def work_of(spec: ModelSpec) -> VllmWork:
    """Count a model's text tower."""
    weights: Counter[Role] = Counter()
    for group in spec.tensors:
        if group.part is Part.TEXT:
            weights[group.role] += group.parameters
    head, embedding = weights[Role.LM_HEAD], weights[Role.EMBEDDING]
    if spec.tied_embeddings and not head:
        head = spec.vocab * spec.hidden
        embedding = max(0, embedding - head)
    routed = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    experts = sum(ffn.experts for ffn in routed)
    states = [(m, n) for m, n in spec.mixer_counts if isinstance(m, RecurrentState)]
    return VllmWork(
        layers=len(spec.layers),
        routed_layers=len(routed),
        recurrent_layers=sum(n for _, n in states),
        linear=weights[Role.LINEAR] + weights[Role.ROUTER],
        expert=weights[Role.EXPERT],
        head=head,
        embedding=embedding,
        expert_share=sum(ffn.top_k for ffn in routed) / experts if experts else 0.0,
        state=sum(m.state * n for m, n in states),
        moved=sum(_moved(layer, spec.hidden) for layer in spec.layers),
        attention=tuple(
            kind for mixer, count in spec.mixer_counts if (kind := _attention(mixer, count))
        ),
    )


def _attention(mixer: Mixer, count: int) -> AttentionKind | None:
    if isinstance(mixer, Attention):
        width = mixer.head_dim + mixer.value_dim
        cached = 0 if mixer.shares_kv_with is not None else mixer.kv_heads * width
        reach = mixer.window or mixer.local_chunk
        flops = 2 * mixer.query_heads * width
        return AttentionKind(count, flops, cached, mixer.kv_heads, reach, False)
    if isinstance(mixer, LatentAttention):
        width = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
        cached = mixer.kv_rank + mixer.rope_dim
        reach = mixer.indexer.top_k if mixer.indexer else mixer.window
        return AttentionKind(count, 2 * mixer.query_heads * width, cached, 1, reach, True)
    return None


def _moved(layer: Layer, hidden: int) -> int:
    """Two norms with their residuals, what is turned and cached, and the FFN's product."""
    inner = 0
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            inner += 2 * (mixer.query_heads + 2 * mixer.kv_heads) * mixer.head_dim
        elif isinstance(mixer, LatentAttention):
            inner += 2 * mixer.query_heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
        elif isinstance(mixer, RecurrentState):
            inner += 4 * mixer.width
    if isinstance(layer.ffn, DenseFFN):
        inner += 3 * layer.ffn.width
    elif isinstance(layer.ffn, MoEFFN):
        inner += layer.ffn.top_k * (3 * layer.ffn.width + 3 * hidden)
        inner += 3 * layer.ffn.shared_width
    return 8 * hidden + inner
