"""Models that have no rows of their own cache: what their config and their kin say of it."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.calibration.fit.accuracy_rows import read_rows
from kvpareto.calibration.fit.cross_validation import planned_weight_bits
from kvpareto.calibration.fit.published import FOLDER
from kvpareto.planner.accuracy.format_arrays import formats_of
from kvpareto.planner.accuracy.formula import WEIGHTS_BELOW_4
from kvpareto.planner.accuracy.key_noise.key_ranges import bundled_ranges
from kvpareto.planner.accuracy.model_sensitivity import FittedSensitivities
from kvpareto.planner.accuracy.named_noise import equivalent_bits
from kvpareto.planner.accuracy.predict import predict, published
from kvpareto.planner.accuracy.prediction import TaskAccuracy
from kvpareto.planner.accuracy.predictor import FEW_BITS_WIDTH, Predictor
from kvpareto.planner.accuracy.retention import kept_by_both
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from tests.support.accuracy_specs import LLAMA31_8B, QWEN25_7B, UNSEEN, UNSEEN_BIASED, spec_of

CONTEXT = 8192


def qwen(kv_heads: int, model_type: str = "qwen2") -> ModelSpec:
    """Qwen1.5-7B, or with fewer KV heads a Qwen2."""
    config = {
        "model_type": model_type,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": 32,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    }
    return read_model(config, "example/qwen")


@pytest.mark.parametrize(("kv_heads", "family"), [(32, "qwen-1"), (8, "qwen-2")])
def test_one_model_type_may_be_two_families(kv_heads: int, family: str) -> None:
    """Qwen1.5-7B keeps 98 % with 4-bit keys per token, and Qwen2.5-7B 1 %."""
    assert published().models.of(qwen(kv_heads)).features.family == family


def test_a_family_is_what_its_key_biases_are_alike_in() -> None:
    kept = [
        predict(qwen(heads), Configuration.parse("w16a16-k4v4"), CONTEXT).tasks["reasoning"]
        for heads in (32, 8)
    ]
    assert kept[0].retention > 0.9
    assert kept[1].retention < 0.7


def outliers_after(rotation: str, model: str) -> float:
    """Loss of reasoning with 4-bit keys and 16-bit values."""
    config = Configuration.parse(f"w16a16-k4v16{rotation}")
    return 1.0 - predict(spec_of(model), config, CONTEXT).tasks["reasoning"].retention


def test_rotation_makes_outliers_smaller_unless_biases_make_them() -> None:
    """arXiv:2504.04823: rotated 4-bit keys of two models with key biases keep 0 to 3 %."""
    assert outliers_after("+rot", UNSEEN) < 0.5 * outliers_after("", UNSEEN)
    assert outliers_after("+rot", UNSEEN_BIASED) > 0.7 * outliers_after("", UNSEEN_BIASED)


def test_rows_of_weights_alone_say_nothing_of_a_cache() -> None:
    """SmolLM-135M has rows of 4-bit weights; nobody quantized a cache of about its size."""
    config = {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "num_hidden_layers": 30,
        "vocab_size": 49152,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    spec = read_model(config, "HuggingFaceTB/SmolLM-135M")
    assert published().models.key_of(spec) == "smollm-135m"
    found = published().models.of(spec)
    stranger = published().models.unseen(found.features)
    assert tuple(found.mean[:3]) == tuple(stranger.mean[:3])
    assert tuple(found.spread[:3]) == tuple(stranger.spread[:3])
    assert found.spread[3] < stranger.spread[3]
    cache, weights = (
        predict(spec, Configuration.parse(text), 1024) for text in ("w16a16-k4v4", "w4a16-k16v16")
    )
    assert (cache.provenance, weights.provenance) == ("transferred", "published")
    assert "no model of about this size" in cache.notes[0]


def between_sources(misfit: float) -> Predictor:
    payload = published().payload
    return Predictor({**payload, "spread": {**payload["spread"], "source": misfit}})


@pytest.mark.parametrize("model", [LLAMA31_8B, UNSEEN])
def test_a_new_table_differs_from_the_known_ones(model: str) -> None:
    """By hand: log noise beside the model's own spread, at both ends; the middle and weights alone
    stay, and a cache in 16 bits has none."""
    spec = spec_of(model)
    kept = {
        (misfit, text): predict(
            spec, Configuration.parse(text), CONTEXT, between_sources(misfit)
        ).tasks["reasoning"]
        for misfit in (0.0, 3.0)
        for text in ("w16a16-k4v4-g64", "w4a16-k16v16")
    }
    assert kept[0.0, "w4a16-k16v16"] == kept[3.0, "w4a16-k16v16"]
    near, far = (kept[misfit, "w16a16-k4v4-g64"] for misfit in (0.0, 3.0))
    assert near.retention == far.retention
    fit = published()
    effects, shape = fit.models.of(spec), fit.payload["kind_shapes"]["reasoning"]
    known = np.hypot(effects.spread[:3], shape["misfit"])
    least, most = (np.hypot(known, 3.0) - known).min(), (np.hypot(known, 3.0) - known).max()
    steep = fit.gamma * float(np.exp(shape["steepness"]))

    def log_noise(kept: float) -> float:
        floor = shape["floor"]
        return float(np.log(1.0 / ((kept - floor) / (1.0 - floor)) - 1.0)) / steep

    for end in ("low", "high"):
        moved = abs(log_noise(getattr(far, end)) - log_noise(getattr(near, end)))
        assert effects.z * least - 1e-6 <= moved <= effects.z * most + 1e-6


def test_only_what_tables_alone_tell_is_as_far_off_as_tables_are() -> None:
    """Keys that were read, and runs made here, are not a stranger's table."""
    models, biased = published().models, spec_of(UNSEEN_BIASED)
    assert models.of(spec_of(LLAMA31_8B)).of_tables
    features = models.of(biased).features
    assert models.unseen(features).of_tables
    keys = bundled_ranges("Qwen/Qwen2.5-Coder-0.5B-Instruct")
    assert not models.unseen(replace(features, ranges=keys)).of_tables
    rows = {**models.payload["models"]["llama-3.1-8b"], "provenance": "calibrated"}
    calibrated = FittedSensitivities({**models.payload, "models": {"mine": rows}})
    assert not calibrated.known("mine", features).of_tables


def test_the_keys_of_another_model_of_its_shape_are_not_its_own() -> None:
    """Qwen2-7B has Qwen2.5-7B's shape: it takes the rows and the table of keys, not the trust."""
    spec = replace(spec_of(QWEN25_7B), name="example/copy")
    taken = published().models.of(spec)
    assert taken.features.ranges is not None
    assert taken.of_tables
    own = replace(taken.features, ranges=bundled_ranges("Qwen/Qwen2.5-Coder-0.5B-Instruct"))
    assert not published().models.sister("qwen2.5-7b", own).of_tables


def test_errors_of_cache_and_weights_are_apart() -> None:
    """By hand, in logarithms of what is kept: distances of 0.1 and 0.03 below make 0.1044, not
    0.13; the upper end likewise. What is not quantized adds nothing."""
    cache = np.array([[0.98 * np.exp(-0.1)], [0.98], [0.99]])
    weights = np.array([[0.97 * np.exp(-0.03)], [0.97], [0.98]])
    low, middle, high = kept_by_both(cache, weights, 1)[:, 0]
    assert middle == pytest.approx(0.98 * 0.97, abs=1e-12)
    assert np.log(middle / low) == pytest.approx(np.hypot(0.1, 0.03), abs=1e-9)
    above = np.hypot(np.log(0.99 / 0.98), np.log(0.98 / 0.97))
    assert np.log(high / middle) == pytest.approx(above, abs=1e-9)
    assert kept_by_both(cache, np.ones((3, 1)), 1) == pytest.approx(cache)
    assert kept_by_both(np.zeros((3, 1)), weights, 1).max() == 0.0
    config, alone = (Configuration.parse(f"w4a16-{kv}") for kv in ("k4v4-g64", "k16v16"))
    spec = spec_of(LLAMA31_8B)
    both, by_weights = (predict(spec, c, CONTEXT).tasks["reasoning"] for c in (config, alone))
    by_cache = predict(spec, Configuration.parse("w16a16-k4v4-g64"), CONTEXT).tasks["reasoning"]
    assert both.retention == pytest.approx(by_cache.retention * by_weights.retention)
    assert by_cache.low * by_weights.low < both.low < min(by_cache.low, by_weights.low)


def test_a_size_that_nobody_measured_moves_cache_and_weights_alike() -> None:
    """One cause: there the ends are the products of the ends."""
    tiny = published().models.of(spec_of(UNSEEN))
    far = replace(tiny, other_size=np.full(4, 2.0))
    cache, weights = np.array([[0.8], [0.9], [0.95]]), np.array([[0.7], [0.9], [0.99]])
    together = published().together
    assert together(far, cache, weights, 1) == pytest.approx(cache * weights)
    assert together(tiny, cache, weights, 1)[0] > (cache * weights)[0]


def test_weights_below_4_bits_are_as_uncertain_as_they_are_far() -> None:
    """By hand: 0.625 times the log noise beyond 4 bits' beside the model's own. Both ends still
    fall with the bits, for every width."""
    fit = published()
    spread = fit.models.of(spec_of(LLAMA31_8B)).spread[3]
    z, scale = fit.payload["z"]["known"], fit.payload["kind_shapes"]["retrieval"]["weight"]
    mean = fit.models.of(spec_of(LLAMA31_8B)).mean[3] + scale
    bits = np.array([8.0, 4.0, 3.0, 0.0, -14.0])
    none = np.zeros(5)
    formats = formats_of(spec_of(LLAMA31_8B), [Configuration.parse("w4a16-k16v16")] * 5)
    _, kept = fit.retention(
        fit.models.of(spec_of(LLAMA31_8B)), formats, formats, np.stack([none] * 3), 4096.0, bits,
        ("retrieval",), (-z, 0.0, z),
    )  # fmt: skip
    assert (np.diff(kept, axis=-1) < 0).all()
    beyond = WEIGHTS_BELOW_4 * np.array([0.0, 1.0, 4.0, 18.0])
    high = 1.0 / (1.0 + np.exp(mean + beyond - np.hypot(z * spread, FEW_BITS_WIDTH * beyond)))
    assert kept[0, 0, 1:] == pytest.approx(high)
    assert kept[1, 0, 1:] == pytest.approx(1.0 / (1.0 + np.exp(mean + beyond)))


@pytest.mark.parametrize(("bits", "mix"), [(3.0, "Q2_K"), (2.0, "IQ1_S"), (4.0, ""), (16.0, "")])
def test_a_row_of_few_bits_is_predicted_as_such_a_checkpoint_is_planned(
    bits: float, mix: str
) -> None:
    row = next(r for r in read_rows(FOLDER / "accuracy.csv") if not r.quantizes_cache)
    row = replace(row, weight_bits=bits)
    assert planned_weight_bits(row) == (equivalent_bits(mix) if mix else bits)
    assert planned_weight_bits(replace(row, provenance="calibrated")) == bits


@pytest.mark.parametrize("model", [LLAMA31_8B, UNSEEN])
def test_what_4_bit_weights_lose_beside_the_noise_is_in_the_lower_end_alone(model: str) -> None:
    spec, payload = spec_of(model), published().payload
    shapes = payload["kind_shapes"]

    def kept(misfit: float) -> TaskAccuracy:
        shape = {**shapes["reasoning"], "weight_misfit": misfit}
        fit = Predictor({**payload, "kind_shapes": {**shapes, "reasoning": shape}})
        return predict(spec, Configuration.parse("w4a16-k16v16"), CONTEXT, fit).tasks["reasoning"]

    near, far = kept(0.0), kept(0.02)
    assert (near.retention, near.high) == (far.retention, far.high)
    beside = 0.02 * published().models.of(spec).z
    assert far.retention - far.low == pytest.approx(np.hypot(near.retention - near.low, beside))
