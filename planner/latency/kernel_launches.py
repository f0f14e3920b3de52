"""What layers launch and move beside matrix products, attention and the cache.

Unfused layers are transformers' own. The kvpareto runtime fuses a norm, a gate and, in
FUSED_LAYERS, RoPE and the residual add into one kernel each; experts, and what it has no kernel
for, are torch's operations there too.
"""

from ..memory.activation.family_traits import block_traits_of
from ..memory.activation.kvpareto_engine import FUSED_LAYERS
from ..models.spec import (
    Attention,
    CompressedAttention,
    DenseFFN,
    LatentAttention,
    Layer,
    ModelSpec,
    MoEFFN,
    RecurrentState,
)
from .recurrent_calls import recurrent_calls

# Bytes an unfused layer moves for each token and element besides its matrix products, counted
# op by op in 16 bits: two RMS norms with their fp32 round trips 30 each and two residual adds 6
# each a hidden element; RoPE's two products, rotation and sum 16 a Q or K element; SiLU and the
# product of a gated FFN 10, and what it reads back 2, an FFN element.
NORM_BYTES, ROPE_BYTES, FFN_BYTES = 72, 16, 12

# Kernels an unfused layer launches: an RMS norm is 6, a layer norm 1; attention 11 and RoPE 10;
# a gated FFN 5, a plain one 4; two residual adds. A routed FFN and a recurrent mixer launch many
# small ones: as measured on an H200 (docs/latency_fit.md), not counted.
ATTENTION_LAUNCHES, ROPE_LAUNCHES, LATENT_LAUNCHES = 11, 10, 40
MOE_LAUNCHES, RECURRENT_LAUNCHES, RESIDUAL_LAUNCHES = 60, 85, 2

# Latent attention of the runtime: what a step launches, so that DeepSeek-V2-Lite's has the 1,323
# kernels that the profiler counts, 390 of experts among them; and what a chunk's launches cost the
# host beside its pieces, in launches of ours: four products and norms, two appends, fifteen small
# operations.
LATENT_STEP, LATENT_HOST = 26, 9

# Three projections, two appends, attention and its output product; a gated FFN's gate, up, SwiGLU
# and down. Where RoPE, the adds or the gate are torch's own, each of their kernels costs the host
# TORCH_CALL of what launching one of ours (Triton) or a module's product does.
FUSED_ATTENTION, FUSED_FFN, TORCH_CALL = 7, 4, 0.2
L2_NORMS = {"llama4": 14, "llama4_text": 14}  # of queries and keys, which have no module of ours
ROUTED_CALL = 0.5  # the same of the operations below: sorts, top-k, grouped products

# A routed FFN of 16-bit experts (transformers' grouped_mm), counted by torch operation beside its
# router: sort, two gathers, histogram, sum, two grouped products, activation, weights, the order
# back; sort, top-k, histogram and grouped products are two kernels each. Gathering and adding
# biases is 4 more, gpt-oss's clamped gate 5. Packed experts take fewer in a step.
ROUTED, BIASED, CLAMPED, PACKED_ROUTED = 23, 4, 5, 8

# Operations of routers, and of adding shared experts, as torch dispatches them (transformers 5.23,
# the meta device). Groups of experts with a bias of choice (DeepSeek-V3's) take three times those
# of a softmax and a top-k. Llama 4's include what sorts out the rows that it gives its experts
# (runtime/weights/experts.py).
ROUTER, SHARED_ROUTER, GROUP_ROUTER, INPUT_ROUTER = 7, 11, 20, 22
_ROUTERS = {
    "gpt_oss": 3, "granitemoe": 5, "granitemoehybrid": 5, "granitemoeshared": 5, "mixtral": 6,
} | dict.fromkeys(
    ("qwen2_moe", "qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text"), SHARED_ROUTER
) | dict.fromkeys(("llama4", "llama4_text"), INPUT_ROUTER) | dict.fromkeys(
    (
        "axk1", "deepseek_v3", "deepseek_v32", "dots1", "exaone_moe", "glm4_moe", "glm4_moe_lite",
        "glm4v_moe_text", "glm_moe_dsa", "hy_v3", "kimi_k2", "kimi_linear", "minimax_m2",
        "nemotron_h", "solar_open",
    ), GROUP_ROUTER,
)  # fmt: skip

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
# Gemma 3n's four streams, predicted and corrected around each layer, its low-rank residual and its
# embeddings of each layer: products and norms of a layer, torch's small operations, and bytes a
# hidden element, as transformers 5.23 dispatches them on the meta device. Most are on slices, which
# take SLICED times as long as a copy (so do experts' operations in two chunks by kernel).
STREAM_KERNELS, STREAM_LAUNCHES, STREAM_BYTES, SLICED = 13, 24, 175, 3

# Llama 4 gives every expert every token's row: repeated, times its score, looked through, and the
# sum of a result as large.
GIVEN_BYTES = 12
ROUTED_BYTES, HIDDEN_BIAS_BYTES, FFN_BIAS_BYTES, CLAMP_BYTES = 14, 10, 20, 22


def unfused_launches(layer: Layer, norm: str) -> int:
    """Kernels of a layer as transformers runs it."""
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


def unfused_moved_bytes(spec: ModelSpec) -> int:
    """Bytes of one token in all layers, as transformers runs them."""
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


def joinable(layer: Layer) -> int:
    """Products fewer where q, k, v are one, and gate, up."""
    attentions = sum(isinstance(mixer, Attention) for mixer in layer.mixers)
    return 2 * attentions + (isinstance(layer.ffn, DenseFFN) and layer.ffn.gated)


def fused_launches(layer: Layer, spec: ModelSpec, torch_call: float) -> float:
    """Launches of a layer; torch's own small ones count `torch_call`."""
    plain = spec.decoder_type in FUSED_LAYERS
    traits = block_traits_of(spec.decoder_type)
    total = (4 if layer.sandwich_norms else 2) + (1 if plain else RESIDUAL_LAUNCHES * torch_call)
    total += RESIDUAL_LAUNCHES * traits.scaled_adds * torch_call
    total += (STREAM_KERNELS + STREAM_LAUNCHES * torch_call) * (traits.streams > 1)
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            total += FUSED_ATTENTION + 2 * mixer.qk_norm
            total += mixer.rope * (1 if plain else ROPE_LAUNCHES * torch_call)
            total += mixer.rope * L2_NORMS.get(spec.decoder_type, 0) * torch_call
        elif isinstance(mixer, RecurrentState):
            total += recurrent_calls(mixer).step * (torch_call == 1)  # the host's: roofline.py
        else:
            total += LATENT_STEP if torch_call == 1 else LATENT_HOST
    gate = 2 * torch_call - 1 if traits.plain_gate else 0  # activation and product for one SwiGLU
    dense = isinstance(layer.ffn, DenseFFN)
    if isinstance(layer.ffn, MoEFFN) and layer.ffn.shared_width:
        dense, total = True, total + torch_call  # beside the routed experts, and added to theirs
    return total + (FUSED_FFN + gate) * dense


def plain_gates(layer: Layer, spec: ModelSpec) -> int:
    """Gates of a layer whose activation and product the runtime fuses in passes of few rows alone
    (runtime/fused.py): they count as two kernels above."""
    shared = isinstance(layer.ffn, MoEFFN) and layer.ffn.shared_width > 0
    plain = block_traits_of(spec.decoder_type).plain_gate
    return int(plain and (shared or isinstance(layer.ffn, DenseFFN)))


def routed_launches(spec: ModelSpec) -> int:
    """Kernels that a layer's 16-bit experts take."""
    traits = block_traits_of(spec.decoder_type)
    expert = ROUTED + BIASED * traits.expert_biases + CLAMPED * traits.clamped_gate
    return expert + router_launches(spec)


def packed_routed_launches(spec: ModelSpec) -> int:
    """The same of packed ones, in a step."""
    return PACKED_ROUTED + router_launches(spec)


def router_launches(spec: ModelSpec) -> int:
    return _ROUTERS.get(spec.decoder_type, ROUTER)


def fused_moved_bytes(layer: Layer, spec: ModelSpec) -> int:
    """Bytes of one token in a layer."""
    plain = spec.decoder_type in FUSED_LAYERS
    traits = block_traits_of(spec.decoder_type)
    norms = FUSED_NORM_BYTES * (4 if layer.sandwich_norms else 2)
    adds = RESIDUAL_LAUNCHES * FUSED_ADD_BYTES
    if plain:  # one of each is a single kernel
        norms, adds = FUSED_NORM_BYTES, FUSED_ADD_BYTES + FUSED_ADD_NORM_BYTES
    adds += RESIDUAL_LAUNCHES * SCALE_BYTES * traits.scaled_adds
    adds += SLICED * STREAM_BYTES * (traits.streams > 1)
    gated = FFN_BYTES if traits.plain_gate else FUSED_FFN_BYTES
    total = (norms + adds) * spec.hidden
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            rotated = (mixer.query_heads + mixer.kv_heads) * mixer.head_dim
            rope = FLOAT_ROPE_BYTES if traits.float_rotary else ROPE_BYTES
            total += mixer.rope * (FUSED_ROPE_BYTES if plain else rope) * rotated
            total += mixer.qk_norm * FUSED_NORM_BYTES * rotated
            total += ORDERED_BYTES * mixer.query_heads * mixer.value_dim
        elif isinstance(mixer, RecurrentState):
            total += int(recurrent_calls(mixer).moved * mixer.width)
        else:
            total += ROPE_BYTES * spec.hidden
    if isinstance(layer.ffn, DenseFFN):
        total += gated * layer.ffn.width
    elif isinstance(layer.ffn, MoEFFN):
        a_hidden = HIDDEN_BIAS_BYTES * traits.expert_biases
        an_ffn = FFN_BIAS_BYTES * traits.expert_biases + CLAMP_BYTES * traits.clamped_gate
        total += layer.ffn.top_k * (a_hidden * spec.hidden + an_ffn * layer.ffn.width)
        total += routed_moved_bytes(layer, spec)
        total += GIVEN_BYTES * layer.ffn.experts * spec.hidden * traits.every_expert
        total += gated * layer.ffn.shared_width
    return total


def routed_moved_bytes(layer: Layer, spec: ModelSpec) -> int:
    """Bytes of one token that go to its chosen experts and back, and through their gates; biases
    and clamps aside."""
    if not isinstance(layer.ffn, MoEFFN):
        return 0
    return layer.ffn.top_k * (ROUTED_BYTES * spec.hidden + FFN_BYTES * layer.ffn.width)
