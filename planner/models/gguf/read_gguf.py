"""GGUF files -> ModelSpec: the config.json that their keys mean, held to their own tensors.

The shapes of the keys' and values' projections have to be those that the spec's cache is computed
from, layer by layer, or the file is refused: a plan never rests on keys that its tensors deny.
The weights' bytes are the file's own, exact; what they are in 16 bits is computed as ever.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from ...errors import BadConfig
from ...formats.gguf_types import MIX_NUMBERS
from ...units import format_bytes
from ..read_config import read_model
from ..spec import Attention, LatentAttention, ModelSpec
from .architectures import ARCHITECTURES, config_of
from .header import HINT, GgufFile, commonest_type
from .keys import GgufKeys
from .tensors import GgufTensor, StoredGguf

# What converters add to a model's own weights.
_ADDED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_CLOSE = 1e-3  # parameters that a file may have more or fewer before it is said


def read_gguf(files: Sequence[GgufFile], name: str) -> ModelSpec:
    """The model in `files`: one, or all of a split. Raises BadConfig for what is not understood."""
    first = files[0]
    architecture = first.metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise BadConfig(f"{first.path.name} does not say its architecture", HINT)
    kind = first.metadata.get("general.type", "model")
    if architecture == "clip" or kind != "model":
        what = "an image or audio encoder" if architecture == "clip" else f"a {str(kind)[:40]}"
        raise BadConfig(
            f"{first.path.name} is {what}, not a language model", "give the file of the model"
        )
    tensors = tuple(chain.from_iterable(file.tensors for file in files))
    keys = GgufKeys(first.metadata, architecture, tensors)
    config = config_of(keys)
    if config is None:
        raise BadConfig(
            f"{first.path.name} has the architecture {architecture[:60]!r}, which is not read here",
            f"give the hub id or config.json of the original model; {len(ARCHITECTURES)} "
            "architectures are read: docs/gguf.md lists them",
        )
    try:
        spec = read_model(config, name)
    except BadConfig as error:
        said = error.message.removeprefix("config.json: ").replace("config.json", "the file")
        raise BadConfig(f"{first.path.name}, by its keys: {said}", HINT, error.details) from None
    _hold_to_tensors(spec, keys)
    mix = first.metadata.get("general.file_type")
    number = mix if isinstance(mix, int) else -1
    stored = StoredGguf(
        mix=MIX_NUMBERS.get(number % 1024, commonest_type(tensors)),
        architecture=architecture,
        tensors=tensors,
        file_bytes=sum(file.file_bytes for file in files),
    )
    return replace(
        spec,
        gguf=stored,
        warnings=(*spec.warnings, *_differences(spec, tensors), _origin(stored)),
        extra={**spec.extra, "gguf": stored.mix, "gguf_architecture": architecture},
    )


def _origin(stored: StoredGguf) -> str:
    size = format_bytes(stored.tensor_bytes)
    return (
        f"weights of a GGUF file ({stored.mix}, {size}): 16, 8 and 4 bits of the kvpareto runtime "
        "are these, dequantized, and retention is against them"
    )


def _hold_to_tensors(spec: ModelSpec, keys: GgufKeys) -> None:
    for layer, (block, one) in enumerate(zip(range(keys.layers), spec.layers, strict=True)):
        for mixer in one.mixers:
            for name, rows in _cached(mixer):
                tensor = keys.in_layer(block, name)
                if tensor is not None and tensor.shape[1:2] != (rows,):
                    raise BadConfig(
                        f"the GGUF file contradicts itself: {tensor.name} has "
                        f"{tensor.shape[1] if len(tensor.shape) > 1 else 1:,} rows, where its keys "
                        f"give layer {layer} {rows:,}",
                        HINT,
                    )


def _cached(mixer: object) -> Iterator[tuple[str, int]]:
    """Projections into the cache by llama.cpp's names, and the rows they must have."""
    if isinstance(mixer, Attention):
        yield "attn_k.weight", mixer.kv_heads * mixer.head_dim
        yield "attn_v.weight", mixer.kv_heads * mixer.value_dim
        if not mixer.output_gate:
            both = mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
            yield "attn_qkv.weight", mixer.query_heads * mixer.head_dim + both
    elif isinstance(mixer, LatentAttention):
        yield "attn_kv_a_mqa.weight", mixer.kv_rank + mixer.rope_dim


def _differences(spec: ModelSpec, tensors: Sequence[GgufTensor]) -> tuple[str, ...]:
    """A warning where the file's parameters are not those of its keys."""
    held = sum(t.elements for t in tensors if t.name not in _ADDED)
    if abs(held - spec.parameters) <= _CLOSE * held:
        return ()
    return (
        f"the GGUF file holds {held:,} parameters, {held - spec.parameters:+,} against those that "
        "its keys give: its own bytes count for the weights",
    )
