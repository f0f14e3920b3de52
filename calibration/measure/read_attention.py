"""What every format makes of a model's attention, from one pass over a text.

The unquantized model reads TOKENS tokens. As a layer attends, its keys, values and some of its
queries are at hand; keys and values are rounded as each format rounds them, by the runtime's own
quantizer, and the attention with them is held to the attention without. That is the table of
planner/accuracy/key_noise/attention_noise.py, layer by layer, for the price of a pass and of some
hundred roundings. Nothing is stored of the text.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...planner.accuracy.key_noise.attention_noise import (
    KEY_STRUCTURES,
    TILE,
    TURNED,
    VALUE_STRUCTURES,
    AttentionNoise,
    never_finer_worse,
)
from ...planner.accuracy.key_noise.key_ranges import BITS, TRANSFORMS
from ...planner.formats.configuration import Configuration, Granularity
from ...planner.formats.kv_format import KVFormat, SideFormat
from ...planner.models.spec import Attention, ModelSpec
from ...runtime import Session
from ...runtime.attention import PackedKV
from ...runtime.cache.kv_cache import PackedLayer
from ...runtime.cache.layer_state import Attend, LayerState
from ...runtime.cache.quantize import dequantize, quantize
from ...runtime.cache.rotation import rotate, rotate_back
from ...runtime.cache.smoothing import SMOOTHING_TOKENS
from ..execution.loaded_model import OpenModel

TOKENS = 512
QUERIES = 32
"""Queries of each head that are looked at, spread over the later half of the text."""
LEAST = 256
"""Tokens of a text that is long enough: two of the longest blocks."""


def can_read(spec: ModelSpec) -> bool:
    """Whether all that a model caches are keys and values of plain attention."""
    mixers = [mixer for mixer, _ in spec.mixer_counts]
    return bool(mixers) and all(isinstance(m, Attention) and not m.sinks for m in mixers)


def read_attention(base: Session | OpenModel, tokens: Tensor) -> AttentionNoise | None:
    """The table of the model of `base` on a text's tokens [T]; None for a model whose attention is
    not plain, and for a text that does not reach LEAST tokens."""
    if not can_read(base.spec) or len(tokens) < LEAST:
        return None
    with Session(
        base.model, base.spec, Configuration(), tokens=len(tokens), graphs=False, fused=False
    ) as session:
        readers = _watch(session)
        for _ in session.logits(tokens[None], torch.tensor([len(tokens) - 1]), [len(tokens)]):
            pass
    layers = len(base.spec.layers)
    tables = [readers[i].table if i in readers else None for i in range(layers)]
    if not any(tables):
        return None
    keys = _stacked([table and table[0] for table in tables])
    values = _stacked([table and table[1] for table in tables])
    return AttentionNoise(
        never_finer_worse(keys, KEY_STRUCTURES), never_finer_worse(values, VALUE_STRUCTURES)
    )


def _stacked(tables: list[Tensor | None]) -> np.ndarray:
    """[..., layers]; a layer that caches nothing has no noise."""
    shape = next(table.shape for table in tables if table is not None)
    every = [torch.zeros(shape) if table is None else table for table in tables]
    return np.asarray(torch.stack(every, dim=-1).double().numpy())


Table = tuple[Tensor, Tensor]
"""Of one layer: keys' noise [bits, transform, structure], values' [bits, turned, structure]."""


@dataclass
class _Reader:
    """One layer's keys and values [H, T, D] from its append to its attention, then its table."""

    held: tuple[Tensor, Tensor] | None = None
    table: Table | None = None


def _watch(session: Session) -> dict[int, _Reader]:
    """Read the attention of every layer of a session that stores keys of its own."""
    readers: dict[int, _Reader] = {}
    by_state: dict[int, _Reader] = {}
    for index, layer in enumerate(session.cache.layers):
        if isinstance(layer, PackedLayer):
            readers[index] = by_state[id(layer.state)] = _Reader()
            session.cache.layers[index] = _WatchedLayer(layer, readers[index])

    def seam(query: Tensor, width: int, attend: Attend) -> Tensor:
        given = attend.keywords  # type: ignore[attr-defined]
        state: LayerState = given["state"]
        reader = by_state[id(state)]
        if reader.held is not None:  # a layer that shares another's keys comes later
            keys, values = reader.held
            reader.table = _table(
                query[0].float(), keys, values, given["scaling"], given["softcap"], state.window
            )
            reader.held = None
        return attend(query)

    session.cache.clock.seam = seam
    return readers


class _WatchedLayer(PackedLayer):
    """A layer of an unquantized cache whose keys and values are looked at."""

    def __init__(self, layer: PackedLayer, reader: _Reader) -> None:
        super().__init__(layer.state, layer.capacity, layer.leads)
        self._reader = reader

    def update(  # type: ignore[override]
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[PackedKV, PackedKV]:
        self._reader.held = key_states[0].float(), value_states[0].float()
        return super().update(key_states, value_states)


def _table(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scaling: float,
    softcap: float | None,
    slides: int | None,
) -> Table:
    """Of queries [Hq, T, D], keys and values [H, T, D] of one text."""
    heads, tokens, _ = keys.shape
    places = torch.linspace(tokens // 2, tokens - 1, QUERIES).round().long().to(keys.device)
    asked = query[:, places].unflatten(0, (heads, -1)) * scaling
    at = torch.arange(tokens, device=keys.device)
    seen = at <= places[:, None]
    if slides is not None:
        seen &= at > places[:, None] - slides

    def attention(some: Tensor) -> Tensor:
        scores = torch.einsum("hgqd,htd->hgqt", asked, some)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        return scores

    scores = attention(keys)
    logs = scores.masked_fill(~seen, -torch.inf).log_softmax(-1)
    whole = logs.exp()
    mixed = torch.einsum("hgqt,htd->hgqd", whole, values)
    power = mixed.square().sum(-1).mean().clamp(min=1e-12)

    def moved(noisy: Tensor) -> float:
        other = noisy.masked_fill(~seen, -torch.inf).log_softmax(-1)
        terms = torch.where(seen, whole * (logs - other), 0.0)
        return max(float(terms.sum(-1).mean()), 0.0)

    def lost(error: Tensor) -> float:
        return float(torch.einsum("hgqt,htd->hgqd", whole, error).square().sum(-1).mean() / power)

    of_keys = torch.zeros(len(BITS), len(TRANSFORMS), len(KEY_STRUCTURES))
    for b, t, s, config in _formats(TRANSFORMS, KEY_STRUCTURES):
        noisy = attention(_rounded(keys, KVFormat.of(config, 0).key, config.rotation))
        of_keys[b, t, s] = moved(noisy)
    of_values = torch.zeros(len(BITS), len(TURNED), len(VALUE_STRUCTURES))
    for b, t, s, config in _formats(TURNED, VALUE_STRUCTURES):
        error = _rounded(values, KVFormat.of(config, 0).value, config.rotation) - values
        of_values[b, t, s] = lost(error)
    return of_keys, of_values


def _formats(
    transforms: tuple[str, ...], structures: tuple[str, ...]
) -> Iterator[tuple[int, int, int, Configuration]]:
    for b, bits in enumerate(BITS):
        for t, transform in enumerate(transforms):
            for s, structure in enumerate(structures):
                granularity, group, block = _LAYOUTS[structure]
                yield (
                    b,
                    t,
                    s,
                    Configuration(
                        k_bits=bits,
                        v_bits=bits,
                        granularity=granularity,
                        group_size=group,
                        block_tokens=block,
                        smoothing="smooth" in transform,
                        # channels have scales of their own, so a format does not rotate them
                        rotation="rot" in transform and granularity is not Granularity.PER_CHANNEL,
                    ),
                )


_LAYOUTS: dict[str, tuple[Granularity, int | None, int | None]] = {
    **{f"g{width}": (Granularity.PER_TOKEN, width, None) for width in (32, 64, 128)},
    "head": (Granularity.PER_TOKEN, None, None),
    "kc32": (Granularity.PER_CHANNEL, None, 32),
    "kc128": (Granularity.PER_CHANNEL, None, 128),
    "t32": (Granularity.PER_BLOCK, 32, TILE),
    "thead": (Granularity.PER_BLOCK, None, TILE),
    "tensor": (Granularity.PER_TENSOR, None, None),
}


def _rounded(x: Tensor, form: SideFormat, turned: bool) -> Tensor:
    """[H, T, D] as a cache would give it back; tokens behind the last whole block stay."""
    mean = x[:, :SMOOTHING_TOKENS].mean(1, keepdim=True) if form.smoothing else 0.0
    held = x - mean
    held = rotate(held) if turned else held
    whole = x.shape[1] // form.block * form.block
    codes, pairs = quantize(held[None, :, :whole], form)
    held = torch.cat([dequantize(codes, pairs, form)[0], held[:, whole:]], dim=1)
    return (rotate_back(held) if turned else held) + mean
