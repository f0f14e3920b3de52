"""Classes of models by how alike their times are predicted: what has errors, and intervals, apart.

A model that has layers of several classes is of the one that is furthest from plain attention.
"""

from ..memory.activation.family_traits import block_traits_of
from ..models.spec import (
    Attention,
    CompressedAttention,
    LatentAttention,
    ModelSpec,
    MoEFFN,
    RecurrentState,
)
from .recurrent_calls import RECURRENT

PLAIN, MIXTURE, LATENT, RECURRENT_LAYERS = "plain", "mixture", "latent", "recurrent"
CAPPED, STREAMS, UNTRIED = "capped", "streams", "untried"
CLASSES = {
    PLAIN: "attention and dense FFNs",
    MIXTURE: "experts beside plain attention",
    LATENT: "latent attention",
    RECURRENT_LAYERS: "recurrent layers",
    CAPPED: "capped attention scores",
    STREAMS: "several residual streams",
}
"""What each is, in words; UNTRIED is whatever the runtime does not run."""


def class_of(spec: ModelSpec) -> str:
    """One of CLASSES, or UNTRIED."""
    mixers = [mixer for mixer, _ in spec.mixer_counts]
    recurrent = [mixer for mixer in mixers if isinstance(mixer, RecurrentState)]
    indexed = [getattr(mixer, "indexer", None) for mixer in mixers]
    if any(isinstance(mixer, CompressedAttention) for mixer in mixers) or any(indexed):
        return UNTRIED
    if recurrent:
        return RECURRENT_LAYERS if all(x.kind in RECURRENT for x in recurrent) else UNTRIED
    if any(isinstance(mixer, LatentAttention) for mixer in mixers):
        return LATENT
    if any(isinstance(mixer, Attention) and mixer.softcap is not None for mixer in mixers):
        return CAPPED
    if block_traits_of(spec.decoder_type).streams > 1:
        return STREAMS
    return MIXTURE if any(isinstance(layer.ffn, MoEFFN) for layer in spec.layers) else PLAIN
