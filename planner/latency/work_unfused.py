"""What transformers' own layers launch and move beside matrix products, attention and the cache."""

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


def launches(layer: Layer, norm: str) -> int:
    """Kernels of a layer."""
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


def moved_bytes(spec: ModelSpec) -> int:
    """Bytes of one token in all layers."""
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
