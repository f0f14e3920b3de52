"""Bounds on towers that nobody describes, held against bundled models whose towers are read."""

import pytest

from kvpareto.planner.errors import BadConfig
from kvpareto.planner.load_model import load_config
from kvpareto.planner.models.bundled import bundled_models
from kvpareto.planner.models.families.unknown.tower_sizes import LARGEST_TOWER, largest_towers
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Part

TOWERS = (Part.VISION, Part.AUDIO, Part.PROJECTOR)
VISION = {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096}


def test_no_described_tower_is_above_its_bound() -> None:
    found = 0
    for name in bundled_models():
        config = load_config(name).config
        spec = read_model(config, name)
        described = sum(spec.parameters_of(part) for part in TOWERS)
        if described:
            found += 1
            most, _ = largest_towers("unknown", config, spec.hidden)
            assert described < most < 20 * described, name
    assert found > 10


@pytest.mark.parametrize(
    ("config", "most"),
    [
        # 24 layers of 4 x 1,024^2 + 3 x 1,024 x 4,096, twice; 16 patches folded into 4,096
        ({"vision_config": VISION}, 2 * 24 * 16 * 2**20 + 16 * 2**10 * 5120 + 2**24 + 2**27),
        ({"vision_config": VISION, "projector_hidden_act": "gelu", "force_image_size": 448}, None),
        ({"vision_config": VISION, "projector_config": {"n_embed": 2048}}, None),
        ({"vision_config": {"hidden_size": 1024}}, LARGEST_TOWER),
        ({"vision_config": VISION, "audio_config": {"layers": 2}}, LARGEST_TOWER),
        ({"vision_config": VISION, "mm_vision_tower": "google/siglip"}, LARGEST_TOWER),
        ({"vision_config": {**VISION, "num_hidden_layers": 2000}}, LARGEST_TOWER),
        ({}, LARGEST_TOWER),
    ],
)
def test_sections_that_state_their_sizes_bound_them(config: dict, most: int | None) -> None:
    plain, _ = largest_towers("x", {"vision_config": VISION}, 4096)
    found, because = largest_towers("x", config, 4096)
    assert found == (plain if most is None else most)
    assert ("no published one" in because) is (found == LARGEST_TOWER)


KIMI_VL = {
    "model_type": "newcomer_vl",
    "vocab_size": 32000,
    "vision_config": {**VISION, "model_type": "newcomer_vit"},
    "text_config": {
        "model_type": "qwen3",
        "vocab_size": 32000,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
}


def test_what_stands_twice_does_not_make_a_known_text_model_unknown() -> None:
    """Kimi-VL says its vocabulary around its text section too; another number may be anything."""
    spec = read_model(KIMI_VL, "newcomer-vl")
    alone = read_model(KIMI_VL["text_config"] | {"dtype": "bfloat16"}, "qwen3")
    assert spec.parameters == spec.bounds[0].low == alone.parameters
    with pytest.raises(BadConfig, match="vocab_size of its config is not understood"):
        read_model(KIMI_VL | {"vocab_size": 40000}, "newcomer-vl")
