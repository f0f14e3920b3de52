"""The configurations that a calibration may run: the planner's space, thinned where formats
differ by less than a measurement can tell."""

from collections.abc import Sequence

import numpy as np

from ...planner.accuracy import predict as accuracy
from ...planner.accuracy.predictor import Predictor
from ...planner.engines.kvpareto import KVPARETO
from ...planner.engines.kvpareto.configurations import TILE_BLOCKS
from ...planner.formats.configuration import DEFAULT_CHANNEL_BLOCK, Configuration, Granularity
from ...planner.memory.estimate_space import memory_table
from ...planner.models.spec import ModelSpec
from ...planner.search.enumerate import enumerate_space, protection_presets
from ...planner.workload import Workload
from ..fit.profile import starting_fit
from ..measure.layer_sensitivity import Sensitivity
from .next_run import Candidates

CHUNK = 1024
"""Prefill chunk of calibration runs with longer prompts: small beside any cache worth packing."""
EIGHT = "w16a16-k8v8"
"""Told by the fit where there is one: a longer calibration runs it only where it is in doubt."""
ANCHORS = (
    *("w16a16-k16v16", EIGHT, "w16a16-k4v4"),
    *("w16a16-k2v16", "w16a16-k16v2"),
    "w4a16-k16v16",
)
"""What every calibration starts with: both ends and the middle, and two bits of keys and of values
apart, before any combination, whose loss could be laid on either side."""
LONG = 14
"""Runs from which on a calibration has rows enough for a noise of the model's own, whose fit then
says which run tells most (telling_run.py)."""


def chunk_for(context: int) -> int | None:
    return CHUNK if context > CHUNK else None


def anchors(weights: Sequence[int], chunk: int | None, runs: int) -> list[Configuration]:
    """What is run before anything is chosen by a calibration of so many runs; the unquantized model
    first."""
    texts = [text for text in ANCHORS if runs < LONG or text != EIGHT]
    configs = [Configuration.parse(text).with_chunk(chunk) for text in texts]
    return [config for config in configs if config.weight_bits in weights]


def enumerate_candidates(
    spec: ModelSpec,
    context: int,
    weights: Sequence[int],
    sensitivity: Sensitivity | None = None,
) -> tuple[list[Configuration], Candidates]:
    """Configurations with these weight bits and what is believed of them before any run.

    Kept of the planner's space: one window (the longest), blocks of 32 and 64 tokens. What a
    probe of the layers found adds sets of protected layers, and says what each set is worth.
    """
    proposed = sensitivity.proposals() if sensitivity is not None else ()
    probed = {"probed": sensitivity.payload()} if sensitivity is not None else {}
    workload = Workload(context=context, output=0)
    space = enumerate_space(spec, workload, KVPARETO, protection_presets(spec, proposed))
    chunk = chunk_for(context)
    c = space.chunks.index(chunk)
    window = max(layout.residual for layout in space.layouts)
    blocks = {None, DEFAULT_CHANNEL_BLOCK, TILE_BLOCKS[0]}
    kept = [
        f
        for f, number in enumerate(space.layout)
        if space.layouts[number].residual in (0, window)
        and space.layouts[number].block_tokens in blocks
    ]
    total = memory_table(spec, space, workload, KVPARETO, None).total_high
    places = [(space.weights.index(w), f) for w in weights for f in kept]
    configs = [space.at(space.weights[w], f, chunk) for w, f in places]
    predictor = Predictor({**starting_fit(spec).payload, **probed})
    believed = [
        accuracy.average(predicted)
        for predicted in accuracy.predict_many(spec, configs, context, predictor)
    ]
    return configs, Candidates(
        memory=np.array([total[w, f, c] for w, f in places], dtype=np.int64),
        place=np.array([place_of(config) for config in configs]),
        retention=np.array([b.retention for b in believed]),
        low=np.array([b.low for b in believed]),
        high=np.array([b.high for b in believed]),
    )


def place_of(config: Configuration) -> list[float]:
    """Coordinates in which a distance of 1 makes two formats hardly alike."""
    group = np.log2(config.group_size or 256) / 2
    protected = config.protection is not None
    return [
        _depth(config.weight_bits),
        _depth(config.k_bits),
        _depth(config.v_bits),
        group if config.quantizes_kv else 0.0,
        1.5 * (config.granularity is Granularity.PER_CHANNEL),
        1.5 * (config.granularity is Granularity.PER_BLOCK),
        1.5 * (config.granularity is Granularity.PER_TENSOR),
        0.7 * config.smoothing,
        0.7 * config.rotation,
        0.7 * (config.residual > 0),
        0.7 * protected,
    ]


def _depth(bits: int) -> float:
    """16, 8, 4, 2 bits -> 0, 1, 2, 3."""
    return float(4 - np.log2(bits))
