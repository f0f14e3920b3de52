"""Total memory of every configuration of a space: the same bytes as `memory.estimate`.

Weights depend on one axis and KV bytes on another; what is live beyond the cache depends on the
weights, the chunk, and of the KV format only on whether it is packed at all. Each is computed
where it can differ and summed by broadcasting; a test holds the sums to `memory.estimate`.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..hardware.gpus import Hardware
from ..models.spec import ModelSpec, MoEFFN
from ..search.enumerate import Space
from ..workload import Engine, Workload
from . import activation, overhead
from .estimate import activation_error
from .kv_cache_space import kv_table
from .weights import weight_bytes

Ints = npt.NDArray[np.int64]

MOST = 2**60
"""Bytes beyond any budget; eager attention over 2^31 tokens is more, and would overflow."""


@dataclass(frozen=True, eq=False)
class SpaceMemory:
    """Bytes: `weights` [W, 1, 1]; `kv` [1, F, C or 1]; `total` and its upper end [W, F, C].

    `beyond` [4, W, E, C]: what `activation.Activation` counts, beyond the full cache; E is 2 where
    packing the cache changes that, format f having `kind[f]`.
    """

    weights: Ints
    kv: Ints
    total: Ints
    total_high: Ints
    beyond: Ints
    kind: Ints

    def live(self, w: int, f: int, c: int) -> activation.Activation:
        """Live bytes above the weights at one point, as `activation.peak` counts them."""
        kv = int(self.kv[0, f, c % self.kv.shape[2]])
        return activation.Activation(*(kv + int(x) for x in self.beyond[:, w, self.kind[f], c]))


def memory_table(
    spec: ModelSpec,
    space: Space,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> SpaceMemory:
    """Memory of every configuration of `space`; the upper end holds all the model's readings."""
    found = _of_reading(spec, space, workload, engine, hardware)
    high = found.total_high
    for end in spec.ends:
        high = np.maximum(high, _of_reading(end, space, workload, engine, hardware).total_high)
    return replace(found, total_high=high)


def _of_reading(
    spec: ModelSpec,
    space: Space,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> SpaceMemory:
    sizes = [weight_bytes(spec, bits).total for bits in space.weights]
    weights = np.array(sizes, dtype=np.int64).reshape(-1, 1, 1)
    kv = kv_table(spec, space, workload, engine)[None]
    packed = ((space.k_bits < 16) | (space.v_bits < 16)).astype(np.int64)
    if engine is Engine.KVPARETO:  # its kernels read a 16-bit cache in the same way
        packed[:] = 0
    examples = [int(np.argmax(packed == kind)) for kind in range(packed.max(initial=0) + 1)]

    beyond = _beyond(spec, space, workload, engine, kv, examples)
    context = overhead.context(hardware, engine)
    more = np.maximum(beyond[:2].max(axis=0), 0)[:, packed, :]
    moving = kv + np.maximum(beyond[3], 0)[:, packed, :] + overhead.workspace(spec, hardware)
    slack = _slack(space, engine, hardware, examples)[..., packed, :]
    expected, high = (
        weights + moving + taken + (part[0] * moving + part[1] * more + part[2]).astype(np.int64)
        for taken, part in zip((context.expected, context.high), slack, strict=True)
    )
    high = high + (activation_error(spec) * more).astype(np.int64)
    return SpaceMemory(weights, kv, expected, high, beyond, packed)


def _slack(
    space: Space, engine: Engine, hardware: Hardware | None, examples: list[int]
) -> npt.NDArray[np.float64]:
    """The numbers of overhead.Slack, expected and high: [2, 3, 1, E, C]."""
    numbers = np.zeros((2, 3, 1, len(examples), len(space.chunks)))
    for e, example in enumerate(examples):
        for c, chunk in enumerate(space.chunks):
            config = space.at(space.weights[0], example, chunk)
            found = overhead.slack_of(config, engine, hardware)
            terms = np.array([found.moving, found.beyond, found.fixed])
            numbers[:, :, 0, e, c] = terms[:, [0, 2]].T
    return numbers


def _beyond(
    spec: ModelSpec,
    space: Space,
    workload: Workload,
    engine: Engine,
    kv: Ints,
    examples: list[int],
) -> Ints:
    """Live bytes beyond the cache [4, W, E, C], see SpaceMemory.

    Weights that are dequantized need scratch of one size in every pass, so that they move all
    chunks' peaks by the same bytes, except where packed experts run otherwise than plain ones.
    """
    chunks = space.chunks
    beyond = np.zeros((4, len(space.weights), len(examples), len(chunks)), dtype=np.int64)

    def live(w: int, e: int, c: int) -> Ints:
        config = space.at(space.weights[w], examples[e], chunks[c])
        found = activation.peak(spec, config, workload, engine)
        held = int(kv[0, examples[e], c % kv.shape[2]])
        sizes = found.prefill_peak, found.decode_peak, found.resident, found.room
        return np.array([min(size, MOST) for size in sizes]) - held

    like = _passes_like(spec, space, engine)
    for e in range(len(examples)):
        for w, base in enumerate(like):
            if base == w:
                beyond[:, w, e] = np.stack([live(w, e, c) for c in range(len(chunks))], axis=1)
            else:
                shift = live(w, e, 0) - beyond[:, base, e, 0]
                beyond[:, w, e] = beyond[:, base, e] + shift[:, None]
    return beyond


def _passes_like(spec: ModelSpec, space: Space, engine: Engine) -> list[int]:
    """For each weight format the first one whose passes differ from its by scratch alone.

    kvpareto runs packed experts one by one, plain ones all at once.
    """
    experts = any(isinstance(layer.ffn, MoEFFN) for layer in spec.layers)
    kinds = [experts and engine is Engine.KVPARETO and bits < 16 for bits in space.weights]
    return [kinds.index(kind) for kind in kinds]
