"""Total memory of every configuration of a space: the same bytes as `memory.estimate`.

Weights depend on one axis and KV bytes on another; what is live beyond the cache depends on the
weights, the chunk, and of the KV format only on whether it is kinds at all. Each is computed
where it can differ and summed by broadcasting; a test holds the sums to `memory.estimate`.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..engine import Activation, Engine
from ..formats.space import Space
from ..hardware.gpus import Hardware
from ..light_dataclass import dataclass
from ..models.spec import ModelSpec
from ..workload import Workload
from . import overhead
from .allocator_slack import slack_bytes, slack_terms
from .estimate import activation_error
from .named_weights import weights_of

Ints = npt.NDArray[np.int64]

MOST = 2**60
"""Bytes beyond any budget; eager attention over 2^31 tokens is more, and would overflow."""


@dataclass(frozen=True, eq=False)
class SpaceMemory:
    """Bytes: `weights` [W, 1, 1]; `kv` [1, F, C or 1]; the total's upper end [W, F, C].

    `beyond` [4, W, E, C]: what `Activation` counts, beyond the full cache; E is 2 where
    packing the cache changes that, format f having `kind[f]`.
    """

    weights: Ints
    kv: Ints
    total_high: Ints
    beyond: Ints
    kind: Ints

    def live(self, w: int, f: int, c: int) -> Activation:
        """Live bytes above the weights at one point, as Engine.activation counts them."""
        kv = int(self.kv[0, f, c % self.kv.shape[2]])
        return Activation(*(kv + int(x) for x in self.beyond[:, w, self.kind[f], c]))


def memory_table(
    spec: ModelSpec,
    space: Space,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> SpaceMemory:
    """Memory of every configuration of `space`; the upper end holds all the model's readings."""
    expected = _of_reading(spec, space, workload, engine, hardware)
    high = expected.total_high
    for end in spec.ends:
        high = np.maximum(high, _of_reading(end, space, workload, engine, hardware).total_high)
    return replace(expected, total_high=high)


def _of_reading(
    spec: ModelSpec,
    space: Space,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> SpaceMemory:
    held = engine.loaded(spec)
    sizes = [
        weights_of(held, bits, space.weight_name(w)).total for w, bits in enumerate(space.weights)
    ]
    weights = np.array(sizes, dtype=np.int64).reshape(-1, 1, 1)
    kv = engine.kv_table(spec, space, workload)[None]
    kinds = engine.cache_kinds(spec, space, hardware)
    examples = [int(np.argmax(kinds == kind)) for kind in range(kinds.max(initial=0) + 1)]

    beyond = _beyond(spec, space, workload, engine, hardware, kv, examples)
    context = engine.context(hardware)
    # Where formats are of one kind, its row stands for all: no copies of it are made.
    of_format = [0] if len(examples) == 1 else kinds
    more = np.maximum(beyond[:2].max(axis=0), 0)[:, of_format, :]
    room = np.maximum(beyond[3], 0)[:, of_format, :] + overhead.workspace(spec, hardware)
    moving = kv + room
    slack = _slack(space, engine, hardware, examples)[..., of_format, :]
    high = slack_bytes(tuple(slack), moving, more).astype(np.int64)
    high += moving
    high += weights + context.high + (activation_error(spec) * more).astype(np.int64)
    return SpaceMemory(weights, kv, high, beyond, kinds)


def _slack(
    space: Space, engine: Engine, hardware: Hardware | None, examples: list[int]
) -> npt.NDArray[np.float64]:
    """Terms of the slack at its upper end: [3, 1, E, C]."""
    numbers = np.zeros((3, 1, len(examples), len(space.chunks)))
    for e, example in enumerate(examples):
        for c, chunk in enumerate(space.chunks):
            config = space.at(space.weights[0], example, chunk, space.weight_name(0))
            slack = engine.slack(config, hardware)
            numbers[:, 0, e, c] = slack_terms(slack, 2)
    return numbers


def _beyond(
    spec: ModelSpec,
    space: Space,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
    kv: Ints,
    examples: list[int],
) -> Ints:
    """Live bytes beyond the cache [4, W, E, C], see SpaceMemory.

    Weights that are dequantized need scratch of one size in every pass, so that they move all
    chunks' peaks by the same bytes, unless the engine says otherwise (weight_kinds).
    """
    chunks = space.chunks
    beyond = np.zeros((4, len(space.weights), len(examples), len(chunks)), dtype=np.int64)

    def live(w: int, e: int, c: int) -> Ints:
        config = space.at(space.weights[w], examples[e], chunks[c], space.weight_name(w))
        activation = engine.activation(spec, config, workload, hardware)
        held = int(kv[0, examples[e], c % kv.shape[2]])
        sizes = (
            activation.prefill_peak,
            activation.decode_peak,
            activation.resident,
            activation.room,
        )
        return np.array([min(size, MOST) for size in sizes]) - held

    keys = engine.weight_kinds(spec, space.weights)
    like = [keys.index(key) for key in keys]
    for e in range(len(examples)):
        for w, base in enumerate(like):
            if base == w:
                beyond[:, w, e] = np.stack([live(w, e, c) for c in range(len(chunks))], axis=1)
            else:
                shift = live(w, e, 0) - beyond[:, base, e, 0]
                beyond[:, w, e] = beyond[:, base, e] + shift[:, None]
    return beyond
