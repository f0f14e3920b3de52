"""A KV cache that a checkpoint asks for: said, or refused by name."""

from typing import Any

import pytest

from kvpareto.planner.errors import BadConfig
from kvpareto.planner.models.read_config import read_model
from tests.planner.models.quantization.small_checkpoint import dense


def _compressed(scheme: object) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return dense(
        quantization=None,
        quantization_config={
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": group},
            "kv_cache_scheme": scheme,
        },
    )


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (
            {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False},
            "fp8 per tensor",
        ),
        ({"num_bits": 4, "type": "int", "strategy": "group"}, "int4 per group"),
    ],
)
def test_a_cache_that_the_checkpoint_asks_for_is_said(scheme: object, said: str) -> None:
    spec = read_model(_compressed(scheme), "ct")
    assert spec.quantization is not None
    assert spec.quantization.kv_cache == said
    assert [w for w in spec.warnings if f"a KV cache in {said}" in w]


@pytest.mark.parametrize("name", ["kv_cache_quant_algo", "kv_cache_scheme"])
@pytest.mark.parametrize("method", [{"quant_method": "modelopt"}, {}])
def test_modelopt_names_its_cache_by_an_algorithm(name: str, method: dict[str, str]) -> None:
    section = {**method, "quant_algo": "FP8", name: "FP8"}
    spec = read_model(dense(quantization=None, quantization_config=section), "mo")
    assert any("a KV cache in FP8" in warning for warning in spec.warnings)


def test_a_checkpoint_without_a_cache_scheme_says_nothing() -> None:
    spec = read_model(_compressed(None), "ct")
    assert spec.quantization is not None
    assert spec.quantization.kv_cache == ""
    assert not any("KV cache" in warning for warning in spec.warnings)


@pytest.mark.parametrize(
    ("scheme", "named"),
    [("fp8", "kv_cache_scheme"), ({"num_bits": 7}, "num_bits 7"), ({"type": "posit"}, "posit")],
)
def test_a_cache_scheme_that_is_not_understood_is_refused(scheme: object, named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        read_model(_compressed(scheme), "ct")
