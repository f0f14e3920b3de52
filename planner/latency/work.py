"""Operations, bytes and launches that a model's tokens take in our runtime and in transformers.

What a token passes is counted in planner/models/token_work.py; here it becomes the kernels of a
forward pass.
"""

import numpy as np
import numpy.typing as npt

from ..light_dataclass import dataclass
from ..memory.activation.kvpareto_engine import FUSED_LAYERS
from ..models.spec import Attention, DenseFFN, Layer, ModelSpec, MoEFFN, RecurrentState
from ..models.token_work import AttentionWork, token_work
from .kernel_launches import (
    TORCH_CALL,
    fused_launches,
    fused_moved_bytes,
    joinable,
    packed_routed_launches,
    plain_gates,
    routed_launches,
    routed_moved_bytes,
    unfused_launches,
    unfused_moved_bytes,
)
from .parts_cut import ROWS
from .product_fill import mean_inputs, parts_work, row_inputs, wide_slack
from .recurrent_calls import recurrent_calls

Floats = npt.NDArray[np.float64]


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
    routed_bytes: int
    """Of them, those of 16-bit experts."""
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
    plain_gates: int
    """Gates that are one kernel in passes of few rows alone."""
    matrices: int
    """Dense matrix products of a pass, the output head aside."""
    wide_slack: float
    """What dense products of 17 to 64 rows take, in that of filling every multiprocessor."""
    inputs: float
    """Inputs of an output of dense products, in the mean."""
    row_inputs: float
    """Inputs of a token in all of them."""
    parts_linear: float
    """Dense weights whose products of 5 to 16 rows are parts.cu's."""
    parts_8: float
    """The same times what they take in the time of a full card, at 5 to 8 rows."""
    parts_16: float
    """The same at 9 to 16."""
    normed_heads: int
    """Attentions whose queries and keys are normed."""
    experts: int
    """Routed experts of all layers."""
    own_layers: int
    """Layers whose code is the runtime's own: their kernels begin before others' end."""
    recurrent_layers: int
    """Mixers whose state does not grow: no chunk of such a model is captured."""
    recurrent_calls: int
    """Operations that the host launches for them in a chunk."""
    block_calls: float
    """The same for each 64 tokens of it."""
    attention: tuple[AttentionWork, ...]


def work_of(spec: ModelSpec) -> Work:
    """Count a model's work."""
    passed = token_work(spec)
    routed_layers = sum(isinstance(layer.ffn, MoEFFN) for layer in spec.layers)
    saved = sum(joinable(layer) for layer in spec.layers)
    dense = all(isinstance(layer.ffn, DenseFFN) for layer in spec.layers)
    # q, k, v and gate, up that the checkpoint itself has as one matrix (Phi-3)
    apart = sum(_products(layer) for layer in spec.layers)
    joined = min(saved, max(0, apart - passed.matrices)) if dense else 0
    recurrent = [(x, count) for x, count in spec.mixer_counts if isinstance(x, RecurrentState)]
    (taken, parts_8), (_, parts_16) = (parts_work(spec, rows) for rows in ROWS)
    return Work(
        layers=sum(bool(layer.mixers) for layer in spec.layers),
        linear=passed.linear,
        expert=passed.expert,
        expert_share=passed.expert_share,
        top_k=max((x.ffn.top_k for x in spec.layers if isinstance(x.ffn, MoEFFN)), default=0),
        head=passed.head,
        embedding=passed.embedding,
        scan_flops=sum(6 * mixer.state * count for mixer, count in recurrent),
        moved_bytes=unfused_moved_bytes(spec),
        fused_moved_bytes=sum(fused_moved_bytes(layer, spec) for layer in spec.layers),
        routed_bytes=sum(routed_moved_bytes(layer, spec) for layer in spec.layers),
        launches=sum(unfused_launches(layer, spec.norm) for layer in spec.layers),
        fused_launches=int(sum(fused_launches(layer, spec, 1) for layer in spec.layers)) - joined,
        host_launches=sum(fused_launches(layer, spec, TORCH_CALL) for layer in spec.layers)
        - joined,
        routed_launches=routed_layers * routed_launches(spec),
        packed_routed_launches=routed_layers * packed_routed_launches(spec),
        joined_launches=saved - joined,
        plain_gates=sum(plain_gates(layer, spec) for layer in spec.layers),
        matrices=passed.matrices,
        wide_slack=wide_slack(spec),
        inputs=mean_inputs(spec, passed.linear),
        row_inputs=row_inputs(spec, passed.linear),
        parts_linear=taken,
        parts_8=parts_8,
        parts_16=parts_16,
        normed_heads=sum(
            count
            for mixer, count in spec.mixer_counts
            if isinstance(mixer, Attention) and mixer.qk_norm
        ),
        experts=sum(x.ffn.experts for x in spec.layers if isinstance(x.ffn, MoEFFN)),
        own_layers=len(spec.layers) * (spec.decoder_type in FUSED_LAYERS),
        recurrent_layers=sum(count for _, count in recurrent),
        recurrent_calls=sum(recurrent_calls(mixer).chunk * count for mixer, count in recurrent),
        block_calls=sum(recurrent_calls(mixer).block * count for mixer, count in recurrent),
        attention=passed.attention,
    )


def _products(layer: Layer) -> int:
    """Dense matrix products of a layer whose projections are all apart."""
    ffn = 2 + layer.ffn.gated if isinstance(layer.ffn, DenseFFN) else 0
    return 4 * sum(isinstance(mixer, Attention) for mixer in layer.mixers) + ffn
