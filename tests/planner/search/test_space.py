"""The space: every point a valid configuration, none twice, and sums exact to the byte."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.engine import Engine
from kvpareto.planner.engines import all_engines
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.formats.configuration import Configuration, Granularity
from kvpareto.planner.formats.space import Space
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.memory.estimate_space import memory_table
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.search.enumerate import enumerate_space, protection_presets
from kvpareto.planner.search.measured_places import _find
from kvpareto.planner.workload import Workload

MODELS = {
    "dense": "Qwen/Qwen3-8B",
    "windows": "google/gemma-3-4b-it",
    "windows-fp4": "openai/gpt-oss-20b",
    "latents": "deepseek-ai/DeepSeek-V2-Lite-Chat",
    "hybrid": "Qwen/Qwen3.5-27B",
    "key-outliers": "Qwen/Qwen2.5-7B-Instruct",
}
LONG, ODD = Workload(32_768), Workload(1000, 7, batch=3)


def sampled(space: Space, count: int, seed: int = 0) -> list[tuple[int, int, int]]:
    index = np.random.default_rng(seed).integers(0, len(space), count)
    return [tuple(int(i) for i in np.unravel_index(flat, space.shape)) for flat in index]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("workload", [LONG, ODD], ids=["32k", "1000+7x3"])
@pytest.mark.parametrize("engine", [e for e in all_engines() if not e.places], ids=str)
def test_memory_of_the_space_is_memory_of_each_configuration(
    model: str, workload: Workload, engine: Engine
) -> None:
    spec = load_model(model, offline=True)
    space = enumerate_space(spec, workload, engine, protection_presets(spec))
    table = memory_table(spec, space, workload, engine, None)
    for w, f, c in sampled(space, 40):
        config = space.at(space.weights[w], f, space.chunks[c])
        alone = memory.estimate(spec, config, workload, engine, None)
        assert table.total_high[w, f, c] == alone.total_high, config


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_cache_bytes_of_the_space_are_exact(model: str) -> None:
    spec = load_model(model, offline=True)
    space = enumerate_space(spec, ODD, KVPARETO, protection_presets(spec))
    table = KVPARETO.kv_table(spec, space, ODD)
    for _, f, c in sampled(space, 150, seed=1):
        config = space.at(space.weights[0], f, space.chunks[c])
        expected = kv_bytes(spec, config, ODD, KVPARETO).total
        assert table[f, c % table.shape[1]] == expected, config


def test_a_dense_model_has_more_than_a_hundred_thousand_configurations() -> None:
    for model in ("Qwen/Qwen3-8B", "Qwen/Qwen2.5-0.5B-Instruct"):  # heads of 128 and of 64
        spec = load_model(model, offline=True)
        assert len(enumerate_space(spec, LONG, KVPARETO, protection_presets(spec))) >= 100_000


def test_every_point_is_a_configuration_of_the_grammar_and_none_comes_twice() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    space = enumerate_space(spec, LONG, KVPARETO, protection_presets(spec))
    texts = [str(space.at(4, f, 256)) for f in range(len(space.layout))]
    assert [text for text, times in Counter(texts).items() if times > 1] == []
    for text in texts:
        assert str(Configuration.parse(text)) == text


def test_flat_indices_run_over_weights_formats_and_chunks() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    space = enumerate_space(spec, LONG, KVPARETO, protection_presets(spec))
    _, formats, chunks = space.shape
    assert space.chunks[:3] == (None, 64, 128)
    assert str(space.configuration(0)) == "w16a16-k16v16"
    assert str(space.configuration(1)) == "w16a16-k16v16+pc64"
    assert str(space.configuration(2 * formats * chunks)) == "w4a16-k16v16"
    last = space.configuration(len(space) - 1)
    assert (last.weight_bits, last.k_bits, last.v_bits, last.chunk) == (4, 2, 2, 8192)


def test_what_cannot_differ_or_help_is_left_out() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)  # heads of 128 channels
    space = enumerate_space(spec, Workload(100), KVPARETO, protection_presets(spec))
    configs = [space.at(16, f, None) for f in range(len(space.layout))]
    assert {c.group_size for c in configs} == {None, 32, 64}
    assert {c.residual for c in configs} == {0, 32, 64}  # 128 would be longer than the prompt
    assert space.chunks == (None, 64)
    for c in configs:
        assert not (c.smoothing and c.k_bits == 16)
        per_channel = c.granularity is Granularity.PER_CHANNEL
        assert not (per_channel and (c.smoothing or c.rotation or c.k_bits == 16))
        assert c.protection is None or min(c.k_bits, c.v_bits) < 8 >= max(c.k_bits, c.v_bits)


@pytest.mark.parametrize("model", ["google/gemma-2-9b-it", "openai/gpt-oss-20b"])
def test_smoothing_is_not_offered_where_a_cap_or_a_sink_logit_would_notice_it(model: str) -> None:
    space = enumerate_space(
        load_model(model, offline=True),
        LONG,
        KVPARETO,
        protection_presets(load_model(model, offline=True)),
    )
    assert not space.of_layout("smoothing").any()
    assert space.of_layout("rotation").any()


def test_complexity_counts_how_far_a_point_is_from_what_people_run() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    space = enumerate_space(spec, LONG, KVPARETO, protection_presets(spec))
    wanted = {
        "w16a16-k16v16": 0,
        "w4a16-k16v16": 4,  # two halvings
        "w8a16-k8v8+pc256": 7,  # weights, K, V, and a chunk
        "w4a16-k4v4+pc256": 13,
        "w4a16-k8v4-g64+pc256": 21,  # K unlike V: 8; a group
        "w4a16-k4v4-kc+res128+pc256": 17,
        "w8a16-k4v2-pb64-g32+smooth+rot+res32+pc64": 33,
    }
    found = {}
    for w, bits in enumerate(space.weights):
        for f in range(len(space.layout)):
            for c, chunk in enumerate(space.chunks):
                if chunk in (None, 64, 256) and (text := str(space.at(bits, f, chunk))) in wanted:
                    found[text] = int(space.complexity[w, f, c])
    assert found == wanted


def test_protection_knows_the_layers_that_carry_key_outliers() -> None:
    qwen = protection_presets(load_model("Qwen/Qwen2.5-7B-Instruct", offline=True))
    assert qwen[0] == ()
    assert any({0, 27} <= set(layers) for layers in qwen)
    # A hybrid protects layers that cache keys, not its recurrent ones.
    hybrid = load_model("Qwen/Qwen3.5-27B", offline=True)
    for layers in protection_presets(hybrid)[1:]:
        for layer in layers:
            kinds = {type(m).__name__ for m in hybrid.layers[layer].mixers}
            assert kinds == {"Attention"}


def test_transformers_gets_what_its_caches_can_hold() -> None:
    dense = enumerate_space(
        load_model("Qwen/Qwen3-8B", offline=True),
        LONG,
        TRANSFORMERS,
        protection_presets(load_model("Qwen/Qwen3-8B", offline=True)),
    )
    assert set(zip(dense.k_bits.tolist(), dense.v_bits.tolist(), strict=True)) == {
        (16, 16),
        (8, 8),
        (4, 4),
        (2, 2),
    }
    assert not dense.of_layout("rotation").any()
    # Its QuantizedCache takes no sliding windows, so such a model keeps 16 bits.
    slides = load_model("google/gemma-3-4b-it", offline=True)
    assert set(
        enumerate_space(slides, LONG, TRANSFORMERS, protection_presets(slides)).k_bits.tolist()
    ) == {16}


def test_a_quantized_checkpoint_has_one_weight_format() -> None:
    spec = load_model("Qwen/Qwen3-32B-FP8", offline=True)
    assert enumerate_space(spec, LONG, KVPARETO, protection_presets(spec)).weights == (8,)


def test_a_model_without_a_cache_still_has_weights_and_chunks_to_choose() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    bare = replace(spec, layers=tuple(replace(layer, mixers=()) for layer in spec.layers))
    space = enumerate_space(bare, LONG, KVPARETO, protection_presets(bare))
    assert space.shape == (3, 1, 9)
    assert (KVPARETO.kv_table(bare, space, LONG) == 0).all()


def test_a_measured_run_has_its_place_where_its_weights_are_offered() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    space = enumerate_space(spec, LONG, KVPARETO, protection_presets(spec))
    run = Configuration.parse("w4a16-k8v8-g64")
    place = _find(space, run)
    assert place is not None
    assert space.weights[place[0]] == 4
    assert (space.k_bits[place[1]], space.v_bits[place[1]]) == (8, 8)
    assert _find(replace(space, weights=(16,)), run) is None
