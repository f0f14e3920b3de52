"""Attention of transformers' chunks by hand: pairs, masks, the cache that is gone through again."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.engine import Engine
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.engines.transformers_eager import TRANSFORMERS_EAGER
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.card import Card
from kvpareto.planner.latency.efficiency import shipped
from kvpareto.planner.latency.job import ConfigurationAxes, job_of
from kvpareto.planner.latency.roofline_attention import chunk_attention
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import Attention, ModelSpec
from kvpareto.planner.workload import Workload

H200 = find_gpu("H200")
LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
LAYERS, HEADS, DIM, KV = 32, 32, 128, 8
BATCH, CONTEXT, CHUNK = 3, 6000, 64
PAIR = 4 * DIM * HEADS
"""Operations of a query and a key: two products, of a multiplication and an addition a channel."""


def windowed(window: int) -> ModelSpec:
    layers = tuple(
        replace(layer, mixers=tuple(replace(mixer, window=window) for mixer in layer.mixers))
        for layer in LLAMA.layers
        if isinstance(layer.mixers[0], Attention)
    )
    return replace(LLAMA, layers=layers)


def seconds(
    engine: Engine, config: str, length: int, spec: ModelSpec = LLAMA
) -> tuple[float, float]:
    """Of a chunk of `length`: at position 0, and more for each token of position."""
    work = Workload(CONTEXT, 16, batch=BATCH)
    job = job_of(spec, work, ConfigurationAxes.of(Configuration.parse(config), 1))
    card = Card(H200, shipped(engine))
    level, slope = chunk_attention(job, float(length), card)
    return np.asarray(level).item(), np.asarray(slope).item()


def test_one_shot_needs_half_the_pairs_and_no_mask() -> None:
    level, _ = seconds(TRANSFORMERS, "w16a16-k16v16", CONTEXT)
    rate = shipped(TRANSFORMERS).attention * H200.fp16_flops
    assert level == pytest.approx(BATCH * LAYERS * PAIR * CONTEXT**2 / 2 / rate)


def test_eager_attention_needs_all_pairs_and_moves_every_score() -> None:
    c = shipped(TRANSFORMERS_EAGER)
    level, _ = seconds(TRANSFORMERS_EAGER, "w16a16-k16v16", CONTEXT)
    pair = PAIR / (c.attention * H200.fp16_flops)
    pair += HEADS * c.scores_bytes / (c.stream * H200.bandwidth)
    assert c.scores_bytes > 0
    assert level == pytest.approx(BATCH * LAYERS * pair * CONTEXT**2)


def test_a_chunk_carries_a_mask_and_copies_the_cache_to_append() -> None:
    c, config = shipped(TRANSFORMERS), f"w16a16-k16v16+pc{CHUNK}"
    level, slope = seconds(TRANSFORMERS, config, CHUNK)
    card = Card(H200, c)
    rate = card.masked * card.filled(CHUNK * BATCH * HEADS)
    pair = BATCH * LAYERS * PAIR / rate
    assert level == pytest.approx(pair * CHUNK * CHUNK / 2)
    cache = 2 * BATCH * LAYERS * 2 * KV * DIM / card.stream  # once through it, for each token
    # Heads are repeated for their group of 4 queries: the cache read, its copy written and read.
    repeated = (1 + 2 * 4) * cache if c.repeats_kv else 0.0
    assert slope == pytest.approx(pair * CHUNK + (c.cache_moves - 1) * cache + repeated)
    _, packed = seconds(TRANSFORMERS, f"w16a16-k4v4+pc{CHUNK}", CHUNK)
    assert packed == pytest.approx(pair * CHUNK + c.unpack_moves * cache + repeated)


@pytest.mark.parametrize("window", [256, 1024])
def test_a_window_is_seen_from_every_position_alike(window: int) -> None:
    """A mask hides the keys outside it, and SDPA multiplies them all the same."""
    c = shipped(TRANSFORMERS)
    card = Card(H200, c)
    level, slope = seconds(TRANSFORMERS, f"w16a16-k16v16+pc{CHUNK}", CHUNK, windowed(window))
    pair = BATCH * LAYERS * PAIR / (card.masked * card.filled(CHUNK * BATCH * HEADS))
    seen = window + CHUNK if c.masks_windows else min(window, CHUNK / 2)
    assert level == pytest.approx(pair * CHUNK * seen)
    held = LAYERS * 2 * KV * DIM * window / (CONTEXT + 16)
    assert slope == pytest.approx(2 * BATCH * (c.cache_moves - 1) * held / card.stream)
