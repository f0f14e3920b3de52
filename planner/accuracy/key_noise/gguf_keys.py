"""A model's key biases and norms, read off a GGUF file.

Biases and norms are floats in every mix (llama.cpp quantizes matrices alone), so they are read as
they are. Matrices are not unpacked: channels are taken to be one standard deviation wide beside
their bias, 0.3 to 1.7 in the checkpoints looked at. Converters have added Gemma's 1 to the gains
already, and turned the rows of Llama's projections, which is turned back here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...models.gguf.files import model_files
from ...models.gguf.header import GgufFile
from ...models.spec import Attention, ModelSpec
from .checkpoint_keys import Vector, layers_of, plain_base
from .key_simulation import KeyLayer

_NAMES = {
    "key_bias": "attn_k.bias",
    "query_bias": "attn_q.bias",
    "key_gain": "attn_k_norm.weight",
    "query_gain": "attn_q_norm.weight",
}
_TYPES = {"F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2)}
_TURNED = ("llama",)
"""Architectures whose converter keeps as pairs what RoPE turns against each other by halves."""
MOST_BYTES = 2**20


def gguf_key_layers(spec: ModelSpec, path: Path) -> tuple[KeyLayer, ...]:
    """The layers of the model in this GGUF file (or all parts of its split); empty where it tells
    nothing of its keys. Raises BadConfig, OSError for a file that cannot be read."""
    return layers_of(spec, _Gguf(model_files(path), spec))


class _Gguf:
    """The tensors of GGUF files as KeyTensors."""

    def __init__(self, files: Sequence[GgufFile], spec: ModelSpec) -> None:
        self._spec, self._metadata = spec, files[0].metadata
        self._places = {
            tensor.name: (file.path, start, tensor.type, tensor.nbytes)
            for file in files
            for tensor, start in zip(file.tensors, file.starts, strict=True)
        }
        self._architecture = str(self._metadata.get("general.architecture", ""))

    def vector(self, number: int, what: str) -> Vector | None:
        found = self._floats(f"blk.{number}.{_NAMES[what]}")
        if found is None or self._architecture not in _TURNED or not what.endswith("bias"):
            return found
        mixer = next(
            (m for m in self._spec.layers[number].mixers if isinstance(m, Attention)), None
        )
        if mixer is None or found.size % mixer.head_dim:
            return found
        pairs = found.reshape(-1, mixer.head_dim // 2, 2)
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(-1)

    def spread(self, number: int, side: str) -> float:
        del number, side
        return 1.0

    def rope_base(self, number: int) -> float:
        layer = self._spec.layers[number]
        windowed = any(isinstance(m, Attention) and m.window for m in layer.mixers)
        names = ("rope.freq_base_swa",) * windowed + ("rope.freq_base",)
        found = (self._metadata.get(f"{self._architecture}.{name}") for name in names)
        return plain_base(next((value for value in found if value is not None), None))

    def product_scale(self, dim: int) -> float:
        return float(dim**-0.5)

    def _floats(self, name: str) -> Vector | None:
        path, start, kind, size = self._places.get(name, (None, 0, "", 0))
        if path is None or kind not in _TYPES or size > MOST_BYTES:
            return None
        with path.open("rb") as file:
            file.seek(start)
            raw = file.read(size)
        code, width = _TYPES[kind]
        if len(raw) != size or size % width:
            return None
        if kind == "BF16":
            return (np.frombuffer(raw, code).astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(raw, code).astype(np.float32)
