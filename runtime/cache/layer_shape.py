"""What a layer asks of the packed cache, by its model description; what the cache cannot give."""

from dataclasses import dataclass

from ...planner.engines.kvpareto.where_runs import unknown_layers
from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat
from ...planner.models.spec import (
    STATEFUL_RUN,
    Attention,
    LatentAttention,
    Layer,
    ModelSpec,
    RecurrentState,
)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What of a layer decides its cache: heads, channels and window."""

    heads: int
    key_dim: int
    value_dim: int
    window: int | None
    aligned: bool = False
    """Tokens see their own aligned chunk of `window` tokens (Llama 4)."""
    latent: bool = False
    """Latents are the keys, rotary keys the values."""


def layer_shape(layer: Layer, index: int, tokens: int, kind: str) -> LayerShape | None:
    """The cache a layer of a `kind` of model needs for `tokens` tokens, None where it stores
    nothing.

    A window that `tokens` do not outgrow (Phi-3.5's of 262,144) is none: what is full attention has
    faster kernels than what may slide. Raises BadInput for mixers that keep no plain KV cache.
    """
    state = state_of(layer, kind)
    mixers = [mixer for mixer in layer.mixers if mixer is not state]
    if not mixers:
        return None
    mixer = mixers[0]
    if len(mixers) == 1 and isinstance(mixer, LatentAttention) and mixer.packed:
        return LayerShape(1, mixer.kv_rank, mixer.rope_dim, None, latent=True)
    if len(mixers) > 1 or not isinstance(mixer, Attention) or mixer.indexer is not None:
        raise BadInput(
            f"layer {index} of this {kind} keeps no plain KV cache ({unknown_layers([layer])}), "
            "which this runtime cannot run",
            "use --engine transformers for this model",
        )
    if mixer.shares_kv_with is not None:
        return None
    aligned = mixer.window is None and mixer.reach_within(tokens) is not None
    return LayerShape(
        *(mixer.kv_heads, mixer.head_dim, mixer.value_dim), mixer.reach_within(tokens), aligned
    )


def state_of(layer: Layer, kind: str) -> RecurrentState | None:
    """The only recurrent mixer of a layer, in a `kind` of model that the runtime runs; None for
    every other layer."""
    found = [mixer for mixer in layer.mixers if isinstance(mixer, RecurrentState)]
    return found[0] if len(found) == 1 and kind in STATEFUL_RUN else None


def check_smoothing(spec: ModelSpec, config: Configuration) -> None:
    """Raise BadInput where K-smoothing, which shifts every score of a query by one constant, would
    be seen."""
    for index, layer in enumerate(spec.layers):
        for mixer in layer.mixers:
            if not isinstance(mixer, Attention) or not KVFormat.of(config, index).key.smoothing:
                continue
            if mixer.sinks or mixer.softcap is not None:
                what = "a sink logit" if mixer.sinks else "a cap on its scores"
                raise BadInput(
                    f"layer {index} has {what}, which K-smoothing would change",
                    "leave +smooth out for this model; +rot is safe",
                )
