"""Operations and bytes that a model's tokens cost, whatever runs it: the numerators of a roofline.

Counted from the weight tensors and the mixers of a ModelSpec. A multiply and an add are two
operations. Only the text tower counts: a plan is for text.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .activation.family_habits import habits
from .activation.kvpareto import FUSED_LAYERS
from .model_spec import (
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

Floats = npt.NDArray[np.float64]

# Bytes an unfused layer moves for each token and element besides its matrix products, counted
# op by op in 16 bits: two RMS norms with their fp32 round trips 30 each and two residual adds 6
# each a hidden element; RoPE's two products, rotation and sum 16 a Q or K element; SiLU and the
# product of a gated FFN 10, and what it reads back 2, an FFN element.
NORM_BYTES, ROPE_BYTES, FFN_BYTES = 72, 16, 12

# Kernels an unfused layer launches: an RMS norm is 6, a layer norm 1; attention 11 and RoPE 10;
# a gated FFN 5, a plain one 4; two residual adds. A routed FFN and a recurrent mixer launch many
# small ones: as measured on an H200 (docs/latency.md), not counted.
ATTENTION_LAUNCHES, ROPE_LAUNCHES, LATENT_LAUNCHES = 11, 10, 40
MOE_LAUNCHES, RECURRENT_LAUNCHES, RESIDUAL_LAUNCHES = 60, 85, 2

# The same in the kvpareto runtime, which fuses a norm, a gate and, in FUSED_LAYERS, RoPE and the
# residual add into one each: three projections, two appends, attention and its output product; a
# gated FFN gate, up, SwiGLU and down.
# Where RoPE, the adds or the gate are torch's own, each of their kernels costs the host TORCH_CALL
# of what launching one of ours (Triton) or a module's product does.
FUSED_ATTENTION, FUSED_FFN, TORCH_CALL = 7, 4, 0.2
ROUTED_CALL = 0.5  # the same of the operations below: sorts, top-k, grouped products

# A routed FFN of 16-bit experts (transformers' grouped_mm), counted by torch operation: router,
# softmax, top-k, sort, two gathers, histogram, sum, two grouped products, activation, weights, the
# order back; sort, top-k, histogram and grouped products are two kernels each. Gathering and adding
# biases is 4 more, gpt-oss's clamped gate 5. Packed experts take fewer in a step.
ROUTED, BIASED, CLAMPED, PACKED_ROUTED = 30, 4, 5, 15

# Bytes that the same kernels move: a norm reads and writes an element, a residual add moves 6
# (both at once 8), a fused RoPE 4; attention's output is put in order, 4; SwiGLU reads two and
# writes one, which the next product reads.
FUSED_NORM_BYTES, FUSED_ADD_BYTES, FUSED_ADD_NORM_BYTES = 4, 6, 8
SCALE_BYTES = 4  # of what is multiplied by a number before it is added
FUSED_ROPE_BYTES, ORDERED_BYTES, FUSED_FFN_BYTES = 4, 4, 8
FLOAT_ROPE_BYTES = 34  # of a Q or K element that is turned in float32 and cast back

# Experts are torch's own operations (transformers' grouped_mm). For each expert a token passes, a
# hidden element is gathered 4, weighted 4, put back in order 4 and summed up 2, and an FFN element
# moves FFN_BYTES. Biases are gathered and added: 10 a hidden element, 20 an FFN element. gpt-oss's
# clamps and its gate move 22 more.
ROUTED_BYTES, HIDDEN_BIAS_BYTES, FFN_BIAS_BYTES, CLAMP_BYTES = 14, 10, 20, 22


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

    def experts_touched(self, tokens: Floats) -> Floats:
        """Expected fraction of the experts that `tokens` tokens pass, routed at random."""
        return 1.0 - (1.0 - self.expert_share) ** tokens


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
    joinable = sum(_joinable(layer) for layer in spec.layers)
    dense = all(isinstance(layer.ffn, DenseFFN) for layer in spec.layers)
    # q, k, v and gate, up that the checkpoint itself has as one matrix (Phi-3)
    apart = sum(_products(layer) for layer in spec.layers)
    joined = min(joinable, max(0, apart - matrices)) if dense else 0
    kinds = [found for mixer, count in spec.mixer_counts if (found := _attention(mixer, count))]
    return Work(
        layers=sum(bool(layer.mixers) for layer in spec.layers),
        linear=linear,
        expert=expert,
        expert_share=_expert_share(spec),
        head=head,
        embedding=embedding,
        scan_flops=sum(
            6 * mixer.state * count
            for mixer, count in spec.mixer_counts
            if isinstance(mixer, RecurrentState)
        ),
        moved_bytes=_moved_bytes(spec),
        fused_moved_bytes=sum(_fused_moved_bytes(layer, spec) for layer in spec.layers),
        launches=sum(_launches(layer, spec.norm) for layer in spec.layers),
        fused_launches=int(sum(_fused_launches(layer, spec, 1) for layer in spec.layers)) - joined,
        host_launches=sum(_fused_launches(layer, spec, TORCH_CALL) for layer in spec.layers)
        - joined,
        routed_launches=routed_layers * _routed_launches(spec),
        packed_routed_launches=routed_layers * PACKED_ROUTED,
        joined_launches=joinable - joined,
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
            reach=mixer.indexer.top_k if mixer.indexer else None,
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


def _joinable(layer: Layer) -> int:
    """Products fewer where q, k, v are one, and gate, up."""
    attentions = sum(isinstance(mixer, Attention) for mixer in layer.mixers)
    return 2 * attentions + (isinstance(layer.ffn, DenseFFN) and layer.ffn.gated)


def _launches(layer: Layer, norm: str) -> int:
    each_norm = 1 if norm == "layer" else 6
    total = RESIDUAL_LAUNCHES + each_norm * (4 if layer.sandwich_norms else 2)
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            total += ATTENTION_LAUNCHES + ROPE_LAUNCHES * mixer.rope
            total += 2 * each_norm * mixer.qk_norm
        elif isinstance(mixer, RecurrentState):
            total += RECURRENT_LAUNCHES
        else:
            total += LATENT_LAUNCHES
    if isinstance(layer.ffn, MoEFFN):
        total += MOE_LAUNCHES
    elif layer.ffn is not None:
        total += 5 if layer.ffn.gated else 4
    return total


def _fused_launches(layer: Layer, spec: ModelSpec, torch_call: float) -> float:
    """Launches of a layer; torch's own small ones count `torch_call`."""
    plain = (spec.text_type or spec.model_type) in FUSED_LAYERS
    found = habits(spec.text_type or spec.model_type)
    total = (4 if layer.sandwich_norms else 2) + (1 if plain else RESIDUAL_LAUNCHES * torch_call)
    total += RESIDUAL_LAUNCHES * found.scaled_adds * torch_call
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            total += FUSED_ATTENTION + 2 * mixer.qk_norm
            total += mixer.rope * (1 if plain else ROPE_LAUNCHES * torch_call)
        else:  # not run
            total += LATENT_LAUNCHES
    gate = 2 * torch_call - 1 if found.plain_gate else 0  # activation and product for one SwiGLU
    dense = isinstance(layer.ffn, DenseFFN)
    if isinstance(layer.ffn, MoEFFN) and layer.ffn.shared_width:
        dense, total = True, total + torch_call  # beside the routed experts, and added to theirs
    return total + (FUSED_FFN + gate) * dense


def _routed_launches(spec: ModelSpec) -> int:
    found = habits(spec.text_type or spec.model_type)
    return ROUTED + BIASED * found.expert_biases + CLAMPED * found.clamped_gate


def _moved_bytes(spec: ModelSpec) -> int:
    total = 0
    for layer in spec.layers:
        total += NORM_BYTES * spec.hidden
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                total += ROPE_BYTES * (mixer.query_heads + mixer.kv_heads) * mixer.head_dim
            elif isinstance(mixer, LatentAttention):
                total += ROPE_BYTES * mixer.query_heads * (mixer.nope_dim + mixer.rope_dim)
            elif isinstance(mixer, CompressedAttention):
                total += ROPE_BYTES * (mixer.query_heads + 1) * mixer.head_dim
            else:
                total += ROPE_BYTES * mixer.width
        if isinstance(layer.ffn, DenseFFN):
            total += FFN_BYTES * layer.ffn.width
        elif isinstance(layer.ffn, MoEFFN):
            total += FFN_BYTES * (layer.ffn.width * layer.ffn.top_k + layer.ffn.shared_width)
    return total


def _fused_moved_bytes(layer: Layer, spec: ModelSpec) -> int:
    plain = (spec.text_type or spec.model_type) in FUSED_LAYERS
    found = habits(spec.text_type or spec.model_type)
    norms = FUSED_NORM_BYTES * (4 if layer.sandwich_norms else 2)
    adds = RESIDUAL_LAUNCHES * FUSED_ADD_BYTES
    if plain:  # one of each is a single kernel
        norms, adds = FUSED_NORM_BYTES, FUSED_ADD_BYTES + FUSED_ADD_NORM_BYTES
    adds += RESIDUAL_LAUNCHES * SCALE_BYTES * found.scaled_adds
    gated = FFN_BYTES if found.plain_gate else FUSED_FFN_BYTES
    total = (norms + adds) * spec.hidden
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            turned = (mixer.query_heads + mixer.kv_heads) * mixer.head_dim
            rope = FLOAT_ROPE_BYTES if found.float_rotary else ROPE_BYTES
            total += mixer.rope * (FUSED_ROPE_BYTES if plain else rope) * turned
            total += mixer.qk_norm * FUSED_NORM_BYTES * turned
            total += ORDERED_BYTES * mixer.query_heads * mixer.value_dim
        else:  # not run
            total += ROPE_BYTES * spec.hidden
    if isinstance(layer.ffn, DenseFFN):
        total += gated * layer.ffn.width
    elif isinstance(layer.ffn, MoEFFN):
        a_hidden = ROUTED_BYTES + HIDDEN_BIAS_BYTES * found.expert_biases
        an_ffn = FFN_BYTES + FFN_BIAS_BYTES * found.expert_biases
        an_ffn += CLAMP_BYTES * found.clamped_gate
        total += layer.ffn.top_k * (a_hidden * spec.hidden + an_ffn * layer.ffn.width)
        total += gated * layer.ffn.shared_width
    return total
