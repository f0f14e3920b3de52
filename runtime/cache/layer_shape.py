"""What a layer asks of the packed cache, by its model description; what the cache cannot give."""

from dataclasses import dataclass

from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat
from ...planner.models.spec import STATEFUL_RUN, Attention, Layer, ModelSpec, RecurrentState


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What of a layer decides its cache: heads, channels and window."""

    heads: int
    key_dim: int
    value_dim: int
    window: int | None


def layer_shape(layer: Layer, index: int, tokens: int, kind: str) -> LayerShape | None:
    """The cache a layer of a `kind` of model needs for `tokens` tokens, None where it stores
    nothing.

    A window that `tokens` do not outgrow (Phi-3.5's of 262,144) is none: what is full attention has
    faster kernels than what may slide. Raises BadInput for mixers that keep no plain KV cache.
    """
    if not layer.mixers or state_of(layer, kind) is not None:
        return None
    if len(layer.mixers) > 1 or not isinstance(layer.mixers[0], Attention):
        kinds = " + ".join(type(mixer).__name__ for mixer in layer.mixers)
        raise BadInput(
            f"layer {index} of this {kind} keeps no plain KV cache ({kinds}), "
            "which this runtime cannot run",
            "use --engine transformers for this model",
        )
    mixer = layer.mixers[0]
    if mixer.local_chunk is not None:
        raise BadInput(
            f"layer {index} of this {kind} attends within aligned chunks of "
            f"{mixer.local_chunk} tokens, which this runtime cannot run",
            "use --engine transformers for this model",
        )
    if mixer.shares_kv_with is not None:
        return None
    return LayerShape(mixer.kv_heads, mixer.head_dim, mixer.value_dim, mixer.window_within(tokens))


def state_of(layer: Layer, kind: str) -> RecurrentState | None:
    """The recurrent mixer of a layer that has no other, in a `kind` of model that the runtime runs;
    None for every other layer."""
    one = layer.mixers[0] if len(layer.mixers) == 1 else None
    return one if isinstance(one, RecurrentState) and kind in STATEFUL_RUN else None


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
