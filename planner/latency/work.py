"""Operations and bytes that a model's tokens take, for any engine: the roofline's numerators.

Counted from the weight tensors and the mixers of a ModelSpec. A multiply and an add are two
operations. Only the text tower counts: a plan is for text.
"""

import numpy as np
import numpy.typing as npt

from ..light_dataclass import dataclass
from ..models.spec import (
    Attention,
    CompressedAttention,
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
from .kernel_launches import (
    PACKED_ROUTED,
    TORCH_CALL,
    fused_launches,
    fused_moved_bytes,
    joinable,
    routed_launches,
    unfused_launches,
    unfused_moved_bytes,
)

Floats = npt.NDArray[np.float64]


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
class Work:
    """What one token costs; `linear` and `expert` are weights, so two operations each."""

    layers: int
    linear: int
    """Weights of dense matrix products that every token passes."""
    expert: int
    """Weights of all routed experts."""
    expert_share: float
    """Fraction of the experts that one token passes; 0 without experts."""
    top_k: int
    """Experts that a token passes in a layer, at most; 0 without experts."""
    head: int
    """Weights of the output head (tied or not)."""
    embedding: int
    """Embedding weights that are only looked up: stored, never streamed."""
    scan_flops: int
    """Operations of recurrent states for each token."""
    moved_bytes: int
    """Bytes of norms, RoPE, activations and residuals for each token, unfused."""
    fused_moved_bytes: int
    """The same in the kvpareto runtime."""
    launches: int
    """Kernels a forward pass launches, unfused."""
    fused_launches: int
    """The same in the kvpareto runtime."""
    host_launches: float
    """The same in what they cost the host."""
    routed_launches: int
    """Kernels that route, sort, multiply and combine tokens of 16-bit experts there."""
    packed_routed_launches: int
    """The same of packed experts, in a step."""
    joined_launches: int
    """Of them, those that packed weights save: q, k, v and gate, up are one product each."""
    matrices: int
    """Dense matrix products of a pass, the output head aside."""
    experts: int
    """Routed experts of all layers."""
    attention: tuple[AttentionWork, ...]


def work_of(spec: ModelSpec) -> Work:
    """Count a model's work."""
    linear = expert = embedding = head = matrices = 0
    for group in spec.tensors:
        if group.part is not Part.TEXT:
            continue
        match group.role:
            case Role.LINEAR | Role.ROUTER:
                linear += group.parameters
                matrices += group.count
            case Role.EXPERT:
                expert += group.parameters
            case Role.EMBEDDING:
                embedding += group.parameters
            case Role.LM_HEAD:
                head += group.parameters
            case _:
                pass
    if spec.tied_embeddings and not head:
        head, embedding = spec.vocab * spec.hidden, max(0, embedding - spec.vocab * spec.hidden)
    routed_layers = sum(isinstance(layer.ffn, MoEFFN) for layer in spec.layers)
    saved = sum(joinable(layer) for layer in spec.layers)
    dense = all(isinstance(layer.ffn, DenseFFN) for layer in spec.layers)
    # q, k, v and gate, up that the checkpoint itself has as one matrix (Phi-3)
    apart = sum(_products(layer) for layer in spec.layers)
    joined = min(saved, max(0, apart - matrices)) if dense else 0
    kinds = [work for mixer, count in spec.mixer_counts if (work := _attention(mixer, count))]
    return Work(
        layers=sum(bool(layer.mixers) for layer in spec.layers),
        linear=linear,
        expert=expert,
        expert_share=_expert_share(spec),
        top_k=max((x.ffn.top_k for x in spec.layers if isinstance(x.ffn, MoEFFN)), default=0),
        head=head,
        embedding=embedding,
        scan_flops=sum(
            6 * mixer.state * count
            for mixer, count in spec.mixer_counts
            if isinstance(mixer, RecurrentState)
        ),
        moved_bytes=unfused_moved_bytes(spec),
        fused_moved_bytes=sum(fused_moved_bytes(layer, spec) for layer in spec.layers),
        launches=sum(unfused_launches(layer, spec.norm) for layer in spec.layers),
        fused_launches=int(sum(fused_launches(layer, spec, 1) for layer in spec.layers)) - joined,
        host_launches=sum(fused_launches(layer, spec, TORCH_CALL) for layer in spec.layers)
        - joined,
        routed_launches=routed_layers * routed_launches(spec),
        packed_routed_launches=routed_layers * PACKED_ROUTED,
        joined_launches=saved - joined,
        matrices=matrices,
        experts=sum(x.ffn.experts for x in spec.layers if isinstance(x.ffn, MoEFFN)),
        attention=tuple(kinds),
    )


def _attention(mixer: object, count: int) -> AttentionWork | None:
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


def _expert_share(spec: ModelSpec) -> float:
    """Experts a token passes over experts there are, weighted by the layers that have them."""
    routed = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    experts = sum(ffn.experts for ffn in routed)
    return sum(ffn.top_k for ffn in routed) / experts if experts else 0.0


def _products(layer: Layer) -> int:
    """Dense matrix products of a layer whose projections are all apart."""
    ffn = 2 + layer.ffn.gated if isinstance(layer.ffn, DenseFFN) else 0
    return 4 * sum(isinstance(mixer, Attention) for mixer in layer.mixers) + ffn
