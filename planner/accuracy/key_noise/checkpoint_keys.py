"""A model's key biases and norms, read off its checkpoint, as the layers of key_simulation.

    safetensors of a folder, or of a hub id's snapshot in the cache: headers, then those tensors
    the same of a hub id that is not here, by ranges (hub_keys.py)
    a GGUF file: the same tensors by their names there (gguf_keys.py)

Layers are found by their names, `….layers.N.self_attn.k_proj.bias` and the like, which almost all
of transformers' decoders use; ChatGLM and the first Qwen keep one bias for queries, keys and
values. A checkpoint with other names tells nothing, and a model is then as uncertain as one that is
not at hand.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...models.checkpoint_tensors import CheckpointTensors, LocalFile
from ...models.spec import Attention, ModelSpec
from .key_simulation import KeyLayer

Vector = NDArray[np.float32]
_LAYER = re.compile(
    r"^(?P<before>.*\b(?:layers|h)\.)(?P<number>\d+)\."
    r"(?:self_attn\.[kq]_|self_attention\.query_key_value\.bias$|attn\.c_attn\.bias$)"
)
_WANTED = {
    "key_bias": ("self_attn.k_proj.bias",),
    "query_bias": ("self_attn.q_proj.bias",),
    "key_gain": ("self_attn.k_norm.weight", "self_attn.k_layernorm.weight"),
    "query_gain": ("self_attn.q_norm.weight", "self_attn.q_layernorm.weight"),
}
_FUSED = ("self_attention.query_key_value.bias", "attn.c_attn.bias")
"""Biases of queries, then keys, then values, in one vector."""
MOST_LAYERS = 512
ROWS = 32
"""Rows of a projection that say how wide its channels are."""


class KeyTensors(Protocol):
    """What a checkpoint of some format says of the keys of layer `number`."""

    def vector(self, number: int, what: str) -> Vector | None:
        """A bias or a norm's gain by its field in KeyLayer; None where there is none."""

    def spread(self, number: int, side: str) -> float:
        """Standard deviation of the channels of "k" or "q" beside their bias; 1 if not known."""

    def rope_base(self, number: int) -> float:
        """RoPE's base of one layer, 10,000 where nothing is said."""

    def product_scale(self, dim: int) -> float:
        """What products of queries and keys are multiplied by."""


def key_layers(spec: ModelSpec, folder: Path) -> tuple[KeyLayer, ...]:
    """The layers of the model in `folder`; empty where its checkpoint tells nothing of its keys.

    Raises BadConfig for a file that is no safetensors, OSError for one that cannot be read.
    """
    files = [LocalFile(path) for path in sorted(folder.glob("*.safetensors"))]
    return key_layers_of(spec, CheckpointTensors(files), folder)


def key_layers_of(
    spec: ModelSpec, tensors: CheckpointTensors[Any], folder: Path
) -> tuple[KeyLayer, ...]:
    """The same of tensors wherever they are, with the config.json of `folder`."""
    before = {
        match["before"] for name in tensors.names() if (match := _LAYER.match(name)) is not None
    }
    # a vision tower has layers too; the decoder's name is the shorter one
    chosen = min(before, key=lambda text: ("vision" in text, len(text)), default=None)
    if chosen is None:
        return ()
    return layers_of(spec, _Safetensors(tensors, chosen, _config(folder), spec))


def layers_of(spec: ModelSpec, tensors: KeyTensors) -> tuple[KeyLayer, ...]:
    """The layers of `spec` as its tensors tell; empty where they tell nothing."""
    if not 0 < len(spec.layers) <= MOST_LAYERS:
        return ()
    layers = []
    for number, layer in enumerate(spec.layers):
        mixer = next((m for m in layer.mixers if isinstance(m, Attention)), None)
        if mixer is None:
            layers.append(KeyLayer(kv_heads=0, query_heads=0, dim=1))  # it caches no keys
            continue
        if mixer.value_dim != mixer.head_dim:
            return ()  # caches of more than keys and values are not simulated
        layers.append(_layer(mixer, tensors, number))
    return tuple(layers) if any(layer.tells for layer in layers) else ()


def _layer(mixer: Attention, tensors: KeyTensors, number: int) -> KeyLayer:
    dim = mixer.head_dim
    return KeyLayer(
        kv_heads=mixer.kv_heads,
        query_heads=mixer.query_heads // mixer.kv_heads * mixer.kv_heads,
        dim=dim,
        key_bias=_heads(tensors.vector(number, "key_bias"), mixer.kv_heads, dim),
        query_bias=_heads(tensors.vector(number, "query_bias"), mixer.query_heads, dim),
        key_gain=_gain(tensors.vector(number, "key_gain"), dim),
        query_gain=_gain(tensors.vector(number, "query_gain"), dim),
        key_spread=tensors.spread(number, "k"),
        query_spread=tensors.spread(number, "q"),
        theta=tensors.rope_base(number),
        rotary=mixer.rotary_dim if mixer.rope else 2,
        scale=tensors.product_scale(dim),
    )


class _Safetensors:
    """The tensors of a transformers checkpoint, whose layers' names begin with `before`."""

    def __init__(
        self,
        tensors: CheckpointTensors[Any],
        before: str,
        config: Mapping[str, Any],
        spec: ModelSpec,
    ) -> None:
        self._tensors, self._before, self._config, self._spec = tensors, before, config, spec
        self._offset = np.float32(1.0 if spec.norm == "rms_offset" else 0.0)

    def vector(self, number: int, what: str) -> Vector | None:
        start = f"{self._before}{number}."
        names = (start + name for name in _WANTED[what])
        found = next((v for name in names if (v := self._tensors.get(name)) is not None), None)
        if found is not None and what.endswith("gain"):
            return found + self._offset
        return found if found is not None or what.endswith("gain") else self._fused(number, what)

    def _fused(self, number: int, what: str) -> Vector | None:
        start = f"{self._before}{number}."
        names = (start + name for name in _FUSED)
        whole = next((v for name in names if (v := self._tensors.get(name)) is not None), None)
        layer = self._spec.layers[number]
        mixer = next((m for m in layer.mixers if isinstance(m, Attention)), None)
        if whole is None or mixer is None:
            return None
        queries, keys = mixer.query_heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
        if whole.size != queries + 2 * keys:
            return None
        return whole[:queries] if what == "query_bias" else whole[queries : queries + keys]

    def spread(self, number: int, side: str) -> float:
        start = f"{self._before}{number}."
        rows = self._tensors.rows(f"{start}self_attn.{side}_proj.weight", ROWS)
        if rows is None:
            return 1.0
        gain = self._tensors.get(f"{start}input_layernorm.weight")
        if gain is not None and gain.size == rows.shape[1]:
            rows = rows * (gain + self._offset)
        found = float(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1).mean()))
        return found if 1e-3 < found < 1e3 else 1.0

    def rope_base(self, number: int) -> float:
        rope = self._config.get("rope_parameters")
        kinds = self._config.get("layer_types")
        if isinstance(rope, dict) and isinstance(kinds, list) and number < len(kinds):
            rope = rope.get(kinds[number], rope)
        value = rope.get("rope_theta") if isinstance(rope, dict) else None
        return plain_base(self._config.get("rope_theta") if value is None else value)

    def product_scale(self, dim: int) -> float:
        asked = self._config.get("query_pre_attn_scalar")
        base = float(asked) if isinstance(asked, int | float) and asked > 0 else float(dim)
        return float(base**-0.5)


def plain_base(value: object) -> float:
    """RoPE's base where a config says one, else 10,000."""
    return float(value) if isinstance(value, int | float) and 1.0 < value < 1e12 else 10000.0


def _gain(gain: Vector | None, dim: int) -> Vector | None:
    """A norm's gains, where it is over each head and not over all of them."""
    return gain if gain is not None and gain.size == dim and np.isfinite(gain).all() else None


def _heads(bias: Vector | None, heads: int, dim: int) -> Vector | None:
    if bias is None or bias.size != heads * dim or not np.isfinite(bias).all():
        return None
    return bias.reshape(heads, dim)


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config
