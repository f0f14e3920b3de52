"""Fields of config.json that every family has: values of no such kind, and odd dtypes."""

from typing import Any

import pytest

from kvpareto.planner.errors import BadConfig
from kvpareto.planner.load_model import load_config
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.rope_kinds import rope_warnings


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rope_scaling": {"type": "linear", "factor": -2.0}}, "rope_scaling.factor is -2.0, not"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "rope_scaling.factor is '4', not a"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 0}}},
            "rope_parameters.full_attention.factor is 0, not a positive number",
        ),
        (
            {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": -1}},
            "original_max_position_embeddings is -1, not",
        ),
        ({"rope_theta": -10000.0}, "rope_theta is -10000.0, not a positive number"),
        ({"text_config": {"rope_theta": 0}}, "text_config.rope_theta is 0, not a positive number"),
    ],
)
def test_positions_are_turned_by_positive_numbers(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read_model({**load_config("Qwen/Qwen3-8B").config, **fields}, "x")
    assert says in caught.value.message


def test_a_factor_that_shortens_is_said() -> None:
    assert rope_warnings({"rope_scaling": {"type": "linear", "factor": 2}}) == ()
    (note,) = rope_warnings({"rope_scaling": {"type": "linear", "factor": 0.5}})
    assert "factor 0.5, below 1" in note
    (note,) = rope_warnings({"rope_scaling": {"type": "yarn"}})
    assert "has no factor" in note


@pytest.mark.parametrize(
    ("dtypes", "note"),
    [
        ({"torch_dtype": "int8"}, "dtype 'int8' is not one weights are computed in: taken as bfl"),
        ({"torch_dtype": "int8", "dtype": "float16"}, ""),
        ({"dtype": "int8", "torch_dtype": "float16"}, "computed in: taken as float16"),
        ({}, "the config does not say the weights' dtype: taken as bfloat16"),
        ({"dtype": "auto"}, "the config does not say the weights' dtype: taken as bfloat16"),
    ],
)
def test_one_note_says_what_dtype_is_taken(dtypes: dict[str, object], note: str) -> None:
    config = {k: v for k, v in load_config("Qwen/Qwen3-8B").config.items() if "dtype" not in k}
    notes = [one for one in read_model(config | dtypes, "x").warnings if "dtype" in one]
    assert len(notes) == bool(note)
    assert all(note in one for one in notes)
