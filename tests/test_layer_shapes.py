"""The configs that times of other layers are read with are those that were run."""

import json

import pytest

from benchmarks.layers.layer_cases import SETS, cases
from benchmarks.layers.layer_shapes import MODELS, PUBLISHED, architecture
from kvpareto.profiles import read

SHIPPED = {
    line["model"]: line["architecture"]
    for line in map(json.loads, read("calibrations/layer_shapes.jsonl").splitlines())
}


@pytest.mark.parametrize("model", sorted([*MODELS, *PUBLISHED]))
def test_a_shape_is_as_it_is_run(model: str) -> None:
    assert SHIPPED[model] == json.loads(json.dumps(architecture(model)))


def test_every_case_has_a_shape() -> None:
    assert {case.model for which in SETS for case in cases(which)} <= set(SHIPPED)
    assert len({case.key for case in cases("speeds")}) == len(cases("speeds")) == 29
