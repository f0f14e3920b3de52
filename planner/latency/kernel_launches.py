"""What the kvpareto runtime launches and moves beside matrix products, attention and the cache.

It fuses a norm, a gate and, in FUSED_LAYERS, RoPE and the residual add into one kernel each;
experts, and what it has no kernel for, are torch's operations.
"""

from ..memory.activation.family_traits import block_traits_of
from ..memory.activation.kvpareto_engine import FUSED_LAYERS
from ..models.spec import Attention, DenseFFN, Layer, ModelSpec, MoEFFN
from .work_unfused import FFN_BYTES, LATENT_LAUNCHES, RESIDUAL_LAUNCHES, ROPE_BYTES, ROPE_LAUNCHES

# Three projections, two appends, attention and its output product; a gated FFN's gate, up, SwiGLU
# and down. Where RoPE, the adds or the gate are torch's own, each of their kernels costs the host
# TORCH_CALL of what launching one of ours (Triton) or a module's product does.
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


def joinable(layer: Layer) -> int:
    """Products fewer where q, k, v are one, and gate, up."""
    attentions = sum(isinstance(mixer, Attention) for mixer in layer.mixers)
    return 2 * attentions + (isinstance(layer.ffn, DenseFFN) and layer.ffn.gated)


def fused_launches(layer: Layer, spec: ModelSpec, torch_call: float) -> float:
    """Launches of a layer; torch's own small ones count `torch_call`."""
    plain = (spec.text_type or spec.model_type) in FUSED_LAYERS
    traits = block_traits_of(spec.text_type or spec.model_type)
    total = (4 if layer.sandwich_norms else 2) + (1 if plain else RESIDUAL_LAUNCHES * torch_call)
    total += RESIDUAL_LAUNCHES * traits.scaled_adds * torch_call
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            total += FUSED_ATTENTION + 2 * mixer.qk_norm
            total += mixer.rope * (1 if plain else ROPE_LAUNCHES * torch_call)
        else:  # not run
            total += LATENT_LAUNCHES
    gate = 2 * torch_call - 1 if traits.plain_gate else 0  # activation and product for one SwiGLU
    dense = isinstance(layer.ffn, DenseFFN)
    if isinstance(layer.ffn, MoEFFN) and layer.ffn.shared_width:
        dense, total = True, total + torch_call  # beside the routed experts, and added to theirs
    return total + (FUSED_FFN + gate) * dense


def routed_launches(spec: ModelSpec) -> int:
    """Kernels that a layer's 16-bit experts take."""
    traits = block_traits_of(spec.text_type or spec.model_type)
    return ROUTED + BIASED * traits.expert_biases + CLAMPED * traits.clamped_gate


def fused_moved_bytes(layer: Layer, spec: ModelSpec) -> int:
    """Bytes of one token in a layer."""
    plain = (spec.text_type or spec.model_type) in FUSED_LAYERS
    traits = block_traits_of(spec.text_type or spec.model_type)
    norms = FUSED_NORM_BYTES * (4 if layer.sandwich_norms else 2)
    adds = RESIDUAL_LAUNCHES * FUSED_ADD_BYTES
    if plain:  # one of each is a single kernel
        norms, adds = FUSED_NORM_BYTES, FUSED_ADD_BYTES + FUSED_ADD_NORM_BYTES
    adds += RESIDUAL_LAUNCHES * SCALE_BYTES * traits.scaled_adds
    gated = FFN_BYTES if traits.plain_gate else FUSED_FFN_BYTES
    total = (norms + adds) * spec.hidden
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            turned = (mixer.query_heads + mixer.kv_heads) * mixer.head_dim
            rope = FLOAT_ROPE_BYTES if traits.float_rotary else ROPE_BYTES
            total += mixer.rope * (FUSED_ROPE_BYTES if plain else rope) * turned
            total += mixer.qk_norm * FUSED_NORM_BYTES * turned
            total += ORDERED_BYTES * mixer.query_heads * mixer.value_dim
        else:  # not run
            total += ROPE_BYTES * spec.hidden
    if isinstance(layer.ffn, DenseFFN):
        total += gated * layer.ffn.width
    elif isinstance(layer.ffn, MoEFFN):
        a_hidden = ROUTED_BYTES + HIDDEN_BIAS_BYTES * traits.expert_biases
        an_ffn = FFN_BYTES + FFN_BIAS_BYTES * traits.expert_biases
        an_ffn += CLAMP_BYTES * traits.clamped_gate
        total += layer.ffn.top_k * (a_hidden * spec.hidden + an_ffn * layer.ffn.width)
        total += gated * layer.ffn.shared_width
    return total
