"""A field whose value is of no kind that any family has is refused by its key."""

from typing import Any

import pytest

from kvpareto.planner.errors import BadConfig
from kvpareto.planner.load_model import load_config
from kvpareto.planner.models.read_config import read_model


def qwen(**changes: Any) -> dict[str, object]:
    return {**load_config("Qwen/Qwen2.5-7B-Instruct", offline=True).config, **changes}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("torch_dtype", "banana"),
        ("torch_dtype", 16),
        ("dtype", ["bfloat16"]),
        ("rope_scaling", "yarn"),
        ("rope_scaling", [1.0]),
        ("rope_parameters", [1]),
        ("rope_theta", "many"),
        ("rope_theta", True),
        ("model_type", ["qwen2"]),
        ("model_type", 3),
        ("architectures", "Qwen2ForCausalLM"),
        ("architectures", [3]),
        ("text_config", "a"),
    ],
)
def test_nonsense_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(BadConfig, match=rf"config\.json: {key} is "):
        read_model(qwen(**{key: value}), "edited")


def test_a_nested_section_is_looked_at_too() -> None:
    config = dict(load_config("google/gemma-3-12b-it", offline=True).config)
    config["text_config"] = {**config["text_config"], "rope_scaling": "linear"}  # type: ignore[dict-item]
    with pytest.raises(BadConfig, match=r"text_config\.rope_scaling is 'linear', not an object"):
        read_model(config, "edited")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("torch_dtype", "torch.float16"),
        ("torch_dtype", "auto"),
        ("torch_dtype", "float8_e4m3fn"),
        ("rope_scaling", None),
        ("rope_theta", [1e4, 1e6]),
        ("architectures", None),
    ],
)
def test_what_is_legal_is_read(key: str, value: object) -> None:
    assert read_model(qwen(**{key: value}), "edited").parameters == 7_615_616_512


def test_a_dtype_that_nothing_computes_in_is_noted() -> None:
    spec = read_model(qwen(torch_dtype="float8_e4m3fn", dtype=None), "edited")
    assert any("float8_e4m3fn" in note for note in spec.warnings)
