"""Models that have no rows of their own cache: what their config and their kin say of it."""

import pytest

from kvpareto.planner.accuracy.predict import predict, published
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from tests.support.accuracy_specs import UNSEEN, UNSEEN_BIASED, spec_of

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
