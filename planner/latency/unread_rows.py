"""What a prompt's pass leaves out of the last layer in the kvpareto runtime.

Of a pass one row is read, so the last layer's attention, output projection and feed-forward run for
that row alone, and its queries too where the layer's code is the runtime's own
(runtime/generation/last_layer.py). The layers before it run whole.
"""

from ..light_dataclass import dataclass
from ..memory.activation.kvpareto_engine import FUSED_LAYERS
from ..memory.activation.last_layer import reads_one_row
from ..models.spec import Attention, DenseFFN, LatentAttention, Mixer, ModelSpec, MoEFFN
from .kernel_launches import FUSED_NORM_BYTES, FUSED_ROPE_BYTES, fused_moved_bytes


@dataclass(frozen=True, slots=True)
class UnreadRows:
    """What every row but one of a pass is spared, of the last layer."""

    linear: int = 0
    """Weights of dense products."""
    expert: int = 0
    """Weights of routed experts."""
    moved_bytes: int = 0
    """Bytes of norms, RoPE, activations and residuals, of a token."""
    mixer: Mixer | None = None
    """The attention, of which the layer's share is left out."""


def unread_rows(spec: ModelSpec) -> UnreadRows:
    """Nothing where the last layer runs whole."""
    if not reads_one_row(spec):
        return UnreadRows()
    layer, own = spec.layers[-1], spec.decoder_type in FUSED_LAYERS
    (mixer,) = layer.mixers
    assert isinstance(mixer, Attention | LatentAttention)
    linear = mixer.query_heads * mixer.value_dim * spec.hidden
    kept = FUSED_NORM_BYTES * spec.hidden
    if isinstance(mixer, Attention):
        if own:
            linear += mixer.query_heads * mixer.head_dim * spec.hidden
        turned = mixer.kv_heads + (0 if own else mixer.query_heads)
        kept += mixer.rope * FUSED_ROPE_BYTES * turned * mixer.head_dim
    expert, ffn = 0, layer.ffn
    if isinstance(ffn, DenseFFN):
        linear += (2 + ffn.gated) * ffn.width * spec.hidden
    elif isinstance(ffn, MoEFFN):
        matrices = 2 + ffn.gated
        linear += (matrices * ffn.shared_width + ffn.experts) * spec.hidden
        expert = matrices * ffn.experts * ffn.width * spec.hidden
    moved = fused_moved_bytes(layer, spec) - kept
    return UnreadRows(linear, expert, max(0, moved), mixer)
