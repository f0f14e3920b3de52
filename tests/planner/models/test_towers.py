"""Multimodal families against transformers: every tower's tensors, and the text model's caches."""

from typing import Any

import pytest

from kvpareto.calibration.config_check.meta_model import parameter_groups
from kvpareto.planner.models.families.towers.multimodal import TOWERS
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Part
from tests.planner.models.meta_models import assert_caches_match, build, groups_of

# A text model is shallow here, so that a default of 80 layers costs nothing.
SHALLOW = {"num_hidden_layers": 2, "pad_token_id": 0}
MORE: dict[str, dict[str, Any]] = {
    "llama4": {"text_config": {**SHALLOW, "moe_layers": [1]}},
    "qwen3_5": {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "text_config": {**SHALLOW, "num_hidden_layers": 4},
    },
    "qwen3_5_moe": {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "text_config": {**SHALLOW, "num_hidden_layers": 4},
    },
    # Its class mixes sizes of its own into a text section; published files state them all.
    "voxtral": {
        "text_config": {
            **SHALLOW,
            "vocab_size": 97,
            "hidden_size": 48,
            "intermediate_size": 40,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 20,
            "attention_bias": False,
            "mlp_bias": False,
        }
    },
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}},
    "step3p7": {"text_config": {**SHALLOW, "mlp_layer_types": ["dense", "sparse"]}},
    # Their classes tie where a file is silent; published files of them have a head (below).
    **{kind: {"tie_word_embeddings": True} for kind in ("internvl", "kimi_k25", "mistral3")},
}
# Their rotary sections do not fit the classes' own default head_dim.
NO_FORWARD = {"glm4v", "glm4v_moe", "glm46v", "step3p7"}


def small(kind: str) -> dict[str, Any]:
    config: dict[str, Any] = {"model_type": kind, "dtype": "bfloat16", "text_config": SHALLOW}
    config[TOWERS[kind].section] = {"num_hidden_layers": 3, "depth": 3, "encoder_layers": 3}
    merged = {**config, **MORE.get(kind, {})}
    if kind == "llama4":
        merged["architectures"] = ["Llama4ForConditionalGeneration"]
    return merged


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_towers_are_transformers_own(kind: str) -> None:
    config = small(kind)
    model = build(config)
    spec = read_model(config, kind)
    assert groups_of(spec) == parameter_groups(model)
    assert spec.parameters_of(TOWERS[kind].part) > 0
    assert all(
        "language" in group.name or "text_model" in group.name or "lm_head" in group.name
        for group in spec.tensors
        if group.part is Part.TEXT and "newline" not in group.name
    )
    if kind not in NO_FORWARD:
        assert_caches_match(model, spec)


@pytest.mark.parametrize("kind", ["internvl", "mistral3"])
@pytest.mark.parametrize(
    ("around", "inside", "head"), [(None, None, True), (None, True, False), (False, None, True)]
)
def test_a_head_that_no_section_ties_is_counted(
    kind: str, around: bool | None, inside: bool | None, head: bool
) -> None:
    config = small(kind)
    config["tie_word_embeddings"] = around
    config["text_config"] = {**SHALLOW, "tie_word_embeddings": inside}
    spec = read_model({k: v for k, v in config.items() if v is not None}, kind)
    assert any(group.name == "lm_head.weight" for group in spec.tensors) is head
    assert any("a head is counted" in note for note in spec.warnings) is (head and around is None)


def test_llava_may_hold_pixtral() -> None:
    config = small("llava") | {"tie_word_embeddings": False}
    config["vision_config"] = {"model_type": "pixtral", "num_hidden_layers": 3}
    assert groups_of(read_model(config, "pixtral")) == parameter_groups(build(config))


def test_gemma4_has_the_towers_its_file_has() -> None:
    config: dict[str, Any] = {
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "text_config": {**SHALLOW, "num_hidden_layers": 6, "num_kv_shared_layers": 0},
        "vision_config": {"num_hidden_layers": 2},
        "audio_config": {"num_hidden_layers": 2},
    }
    model = build(config)
    spec = read_model(config, "gemma4")
    assert groups_of(spec) == parameter_groups(model)
    assert spec.parameters_of(Part.AUDIO) > 0
    deaf = read_model({**config, "audio_config": None}, "gemma4")
    assert deaf.parameters_of(Part.AUDIO) == 0
    assert deaf.parameters_of(Part.VISION) == spec.parameters_of(Part.VISION)


def test_a_section_of_a_fixed_class_may_call_itself_something_else() -> None:
    """MiniMax-M3's files call their vision tower CLIP; the class reads it as its own."""
    config = small("minimax_m3_vl")
    config["vision_config"] = {"num_hidden_layers": 3, "model_type": "clip_vision_model"}
    assert groups_of(read_model(config, "m3")) == parameter_groups(build(config))
