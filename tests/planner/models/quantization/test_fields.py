"""quantization_config's fields that are absent, of another type or under another name."""

import pytest

from kvpareto.planner.errors import BadConfig
from kvpareto.planner.load_model import load_config
from kvpareto.planner.models.quantization.quantization_config import read_quantization
from kvpareto.planner.models.read_config import read_model


def _ct(weights: dict[str, object]) -> dict[str, object]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
_FOUR = {"num_bits": 4, "group_size": 128, "strategy": "group"}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"quant_method": "gptq", "group_size": 128}, "has no bits"),
        (_GPTQ | {"bits": 7}, "bits 7 is not one of 2, 3, 4, 8"),
        (_GPTQ | {"bits": "4"}, "bits is '4', not a whole number"),
        ({"quant_method": "gptq", "bit": 4, "group_size": 128}, "'bit' is not a field"),
        ({"quant_method": "gptq", "bits": 4, "groupsize": 64}, "'groupsize' is not a field"),
        ({"quant_method": "gptq", "bits": 4, "gruop_size": 64}, "'gruop_size' is not a field"),
        (_AWQ | {"modules_to_not_conver": ["lm_head"]}, "'modules_to_not_conver' is not a field"),
        (_AWQ | {"group_size": 0}, "group_size is 0"),
        (_AWQ | {"group_size": None, "q_group_size": 0}, "q_group_size is 0"),
        (_GPTQ | {"group_size": 0}, "group_size is 0"),
        (_AWQ | {"zero_point": "no"}, "zero_point is 'no', not true or false"),
        (_GPTQ | {"lm_head": 1}, "lm_head is 1, not true or false"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": "true"}, "load_in_4bit is 'true', not"),
        ({"quant_method": "compressed-tensors"}, "has no config_groups"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "config_groups is empty"),
        (
            {"quant_method": "compressed-tensors", "config_groups": [_FOUR]},
            "config_groups is [{'num_bits': 4, 'group_size': 128, 'st…, not an object",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": 4}},
            "group_0 is 4, not an object",
        ),
        (_ct(_FOUR | {"group_size": 0}), "group_size is 0"),
        (_ct({"num_bits": 4, "strategy": "group"}), "no group_size for its groups"),
        (_ct(_FOUR | {"strategy": "rows"}), "strategy is 'rows', not one of tensor, ch"),
        (_ct(_FOUR | {"strategy": ["group"]}), "strategy is ['group'], not one of tensor"),
        ({"quant_method": "mlx", "bits": 4, "group_size": 64, "mode": [1]}, "mode is [1], not"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": 1}, "8bit is 1"),
        (_ct(_FOUR | {"symmetric": 0}), "symmetric is 0, not true or false"),
        (_ct({"numbits": 4, "strategy": "channel"}), "'numbits' is not a field"),
        ({"quant_method": "hqq"}, "has no quant_config"),
        ({"quant_method": "hqq", "quant_config": 4}, "quant_config is 4, not an object"),
        (
            {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4,
             "group_size": 0}}},
            "group_size is 0",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 0}, "group_size is 0"),
        ({"quant_method": "mlx", "group_size": 64}, "has no bits"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named(section: dict[str, object], says: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read_quantization({"quantization_config": section})
    assert says in caught.value.message
    assert caught.value.hint


def test_a_name_that_is_near_one_that_is_there_is_no_mistake() -> None:
    found = read_quantization({"quantization_config": _ct(_FOUR) | {"config_group": {}}})
    assert found is not None
    assert found.bits == 4


@pytest.mark.parametrize(
    ("section", "missing"),
    [
        ({"quant_method": "gptq", "bits": 4}, "no group_size: taken as GPTQ 4-bit, group 128"),
        ({"quant_method": "awq", "bits": 4}, "no group_size: taken as AWQ 4-bit, group 128"),
        ({"quant_method": "awq", "q_group_size": 64}, ""),
        (_AWQ, ""),
        (_ct({"strategy": "channel"}), "no num_bits: taken as int8 per channel"),
        (_ct({"num_bits": 8, "strategy": "channel"}), ""),
        (
            {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"axis": 1}}},
            "no nbits and no group_size: taken as HQQ 4-bit, group 64",
        ),
    ],
)
def test_a_default_that_the_bytes_rest_on_is_said(section: dict[str, object], missing: str) -> None:
    config = {**load_config("Qwen/Qwen3-8B").config, "quantization_config": section}
    notes = [note for note in read_model(config, "x").warnings if "quantization_config has" in note]
    assert len(notes) == bool(missing)
    assert all(missing in note for note in notes)
