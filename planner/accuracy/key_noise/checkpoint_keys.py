"""A model's key biases and norms, read off its checkpoint, as the layers of key_simulation.

    of a folder, or of a hub id's snapshot in the cache: safetensors headers, then those tensors

Layers are found by their names, `….layers.N.self_attn.k_proj.bias` and the like, which almost all
of transformers' decoders use; a checkpoint with other names tells nothing, and a model is then as
uncertain as one that is not at hand.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.checkpoint_tensors import CheckpointTensors
from ...models.spec import Attention, ModelSpec
from .key_simulation import KeyLayer

Get = Callable[[str], NDArray[np.float32] | None]
_LAYER = re.compile(r"^(?P<before>.*\blayers\.)(?P<number>\d+)\.self_attn\.(?P<what>[kq]_.*)$")
_WANTED = {
    "key_bias": ("k_proj.bias",),
    "query_bias": ("q_proj.bias",),
    "key_gain": ("k_norm.weight", "k_layernorm.weight"),
    "query_gain": ("q_norm.weight", "q_layernorm.weight"),
}
MOST_LAYERS = 512
ROWS = 32
"""Rows of a projection that say how wide its channels are."""


def key_layers(spec: ModelSpec, folder: Path) -> tuple[KeyLayer, ...]:
    """The layers of the model in `folder`; empty where its checkpoint tells nothing of its keys.

    Raises BadConfig for a file that is no safetensors, OSError for one that cannot be read.
    """
    tensors = CheckpointTensors(folder)
    before = {
        match["before"] for name in tensors.names() if (match := _LAYER.match(name)) is not None
    }
    # a vision tower has layers too, and the decoder is the one that has as many as the spec
    chosen = min(before, key=lambda text: ("vision" in text, len(text)), default=None)
    if chosen is None or not 0 < len(spec.layers) <= MOST_LAYERS:
        return ()
    config = _config(folder)
    layers = []
    for number, layer in enumerate(spec.layers):
        mixer = next((m for m in layer.mixers if isinstance(m, Attention)), None)
        if mixer is None or mixer.value_dim != mixer.head_dim:
            return ()  # caches of more than keys and values are not simulated
        start = f"{chosen}{number}.self_attn."
        layer_of_keys = _layer(mixer, partial(_tensor, tensors, start), config, number, spec)
        gain = tensors.get(f"{chosen}{number}.input_layernorm.weight")
        if gain is not None and spec.norm == "rms_offset":
            gain = gain + np.float32(1.0)
        spreads = (_spread(tensors.rows(f"{start}{s}_proj.weight", ROWS), gain) for s in "kq")
        layers.append(replace(layer_of_keys, key_spread=next(spreads), query_spread=next(spreads)))
    return tuple(layers) if any(layer.tells for layer in layers) else ()


def _tensor(tensors: CheckpointTensors, start: str, what: str) -> NDArray[np.float32] | None:
    return tensors.get(start + what)


def _layer(
    mixer: Attention, get: Get, config: Mapping[str, Any], number: int, spec: ModelSpec
) -> KeyLayer:
    tensors = {
        field: next((v for name in names if (v := get(name)) is not None), None)
        for field, names in _WANTED.items()
    }
    dim = mixer.head_dim
    offset = np.float32(1.0 if spec.norm == "rms_offset" else 0.0)
    return KeyLayer(
        kv_heads=mixer.kv_heads,
        query_heads=mixer.query_heads // mixer.kv_heads * mixer.kv_heads,
        dim=dim,
        key_bias=_heads(tensors["key_bias"], mixer.kv_heads, dim),
        query_bias=_heads(tensors["query_bias"], mixer.query_heads, dim),
        key_gain=_gain(tensors["key_gain"], dim, offset),
        query_gain=_gain(tensors["query_gain"], dim, offset),
        theta=_theta(config, number),
        rotary=mixer.rotary_dim if mixer.rope else 2,
        scale=_scale(config, dim),
    )


def _gain(
    gain: NDArray[np.float32] | None, dim: int, offset: np.float32
) -> NDArray[np.float32] | None:
    """A norm's gains, where it is over each head and not over all of them."""
    if gain is None or gain.size != dim or not np.isfinite(gain).all():
        return None
    return gain + offset


def _spread(rows: NDArray[np.float32] | None, gain: NDArray[np.float32] | None) -> float:
    """Standard deviation of what these rows make of a normalized state; 1 where they are not at
    hand."""
    if rows is None:
        return 1.0
    if gain is not None and gain.size == rows.shape[1]:
        rows = rows * gain
    spread = float(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1).mean()))
    return spread if 1e-3 < spread < 1e3 else 1.0


def _heads(bias: NDArray[np.float32] | None, heads: int, dim: int) -> NDArray[np.float32] | None:
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


def _theta(config: Mapping[str, Any], number: int) -> float:
    """RoPE's base of one layer, 10,000 where the config gives none."""
    rope = config.get("rope_parameters")
    kinds = config.get("layer_types")
    if isinstance(rope, dict) and isinstance(kinds, list) and number < len(kinds):
        rope = rope.get(kinds[number], rope)
    value = rope.get("rope_theta") if isinstance(rope, dict) else None
    value = config.get("rope_theta") if value is None else value
    plain = isinstance(value, int | float) and 1.0 < value < 1e12
    return float(value) if plain and value is not None else 10000.0


def _scale(config: Mapping[str, Any], dim: int) -> float:
    """What products of queries and keys are multiplied by."""
    asked = config.get("query_pre_attn_scalar")
    base = float(asked) if isinstance(asked, int | float) and asked > 0 else float(dim)
    return float(base**-0.5)
