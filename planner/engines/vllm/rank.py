"""The model as one rank sees it: heads and widths shared, KV heads repeated, layers of a stage.

Tensor parallel ranks share heads and FFN widths. A rank has one KV head at least, so beyond as many
ranks as KV heads they are copies; a latent is a copy everywhere. Pipeline stages have whole layers
(vllm/distributed/utils.py: get_pp_indices of 0.26.0).
"""

from dataclasses import replace
from functools import lru_cache

from ...errors import BadInput
from ...models.spec import (
    Attention,
    DenseFFN,
    LatentAttention,
    Layer,
    Mixer,
    ModelSpec,
    MoEFFN,
    RecurrentState,
)
from ...models.spec_key import SpecKey
from .settings import ServeSettings


def rank_spec(spec: ModelSpec, settings: ServeSettings, stage: int = 0) -> ModelSpec:
    """The model of a tensor parallel rank in pipeline stage `stage`. Its vocabulary is whole: the
    sampler gathers all logits. Raises BadInput for sizes that do not divide it."""
    if settings.tensor_parallel == settings.pipeline_parallel == settings.data_parallel == 1:
        return spec
    key = SpecKey(spec), settings.tensor_parallel, settings.pipeline_parallel
    return _rank(*key, _experts_among(settings), stage)


def stage_layers(count: int, stages: int) -> list[range]:
    """The layers of each pipeline stage. What is left over goes to the stages before the last,
    and to the first only at the end."""
    if stages > count:
        raise BadInput(
            f"{stages} pipeline stages for {count} layers", f"at most {count} have a layer each"
        )
    sizes = [count // stages] * stages
    for i in range(2, count % stages + 2):
        sizes[-i] += 1
    starts = [sum(sizes[:i]) for i in range(stages)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def sizes_that_divide(spec: ModelSpec, most: int) -> list[int]:
    """Tensor parallel sizes up to `most` that divide the model; 1 always does."""
    return [size for size in range(1, most + 1) if tensor_obstacle(spec, size) is None]


def tensor_obstacle(spec: ModelSpec, size: int, experts_whole: bool = False) -> str | None:
    """Why `size` tensor parallel ranks cannot share the model; None where they can."""
    if size == 1:
        return None
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, Attention | LatentAttention):
            if mixer.query_heads % size:
                return f"{mixer.query_heads} attention heads are no multiple of {size}"
            kv = mixer.kv_heads if isinstance(mixer, Attention) else size
            if max(kv, size) % min(kv, size):
                return f"{kv} KV heads and {size} ranks do not divide each other"
        elif isinstance(mixer, RecurrentState) and mixer.heads % size:
            return f"{mixer.heads} heads of the recurrent layers are no multiple of {size}"
    for layer in spec.layers:
        ffn = layer.ffn
        if isinstance(ffn, DenseFFN) and ffn.width % size:
            return f"an FFN of {ffn.width} channels is no multiple of {size}"
        if isinstance(ffn, MoEFFN) and not experts_whole and ffn.width % size:
            return f"experts of {ffn.width} channels are no multiple of {size}"
    if -(-spec.vocab // 64) * 64 % size:
        return f"a vocabulary of {spec.vocab} tokens, padded to 64, is no multiple of {size}"
    return None


def _experts_among(settings: ServeSettings) -> int:
    """Ranks that whole experts are spread over; 1: each rank has a part of every expert."""
    if not settings.expert_parallel:
        return 1
    return settings.tensor_parallel * settings.data_parallel


@lru_cache(maxsize=64)
def _rank(key: SpecKey, tensor: int, pipeline: int, experts_among: int, stage: int) -> ModelSpec:
    spec = key.spec
    obstacle = tensor_obstacle(spec, tensor, experts_whole=experts_among > 1)
    if obstacle is not None:
        raise BadInput(
            f"--tensor-parallel-size {tensor} does not divide {spec.name}: {obstacle}",
            "sizes that do: " + ", ".join(map(str, sizes_that_divide(spec, 16))),
        )
    kept = stage_layers(len(spec.layers), pipeline)[stage]
    layers = tuple(_layer(spec.layers[i], tensor, experts_among) for i in kept)
    return replace(spec, layers=layers, readings=(), bounds=())


def _layer(layer: Layer, tensor: int, experts_among: int) -> Layer:
    ffn = layer.ffn
    if isinstance(ffn, DenseFFN):
        ffn = replace(ffn, width=ffn.width // tensor)
    elif isinstance(ffn, MoEFFN):
        width = ffn.width if experts_among > 1 else ffn.width // tensor
        ffn = replace(ffn, width=width, shared_width=ffn.shared_width // tensor)
    return replace(layer, mixers=tuple(_mixer(m, tensor) for m in layer.mixers), ffn=ffn)


def _mixer(mixer: Mixer, tensor: int) -> Mixer:
    if isinstance(mixer, Attention):
        kv_heads = max(1, mixer.kv_heads // tensor)
        return replace(mixer, query_heads=mixer.query_heads // tensor, kv_heads=kv_heads)
    if isinstance(mixer, LatentAttention):
        return replace(mixer, query_heads=mixer.query_heads // tensor)
    if isinstance(mixer, RecurrentState):
        return replace(
            mixer,
            state=-(-mixer.state // tensor),
            conv=-(-mixer.conv // tensor),
            heads=max(1, mixer.heads // tensor),
            width=max(1, mixer.width // tensor),
        )
    return mixer
