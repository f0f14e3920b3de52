"""Every family against transformers itself: parameters by group, cache bytes at two lengths."""

import pytest

from kvpareto.calibration.config_check.meta_model import (
    parameter_groups,
)
from kvpareto.planner.models.read_config import read_model
from tests.planner.models.meta_models import assert_caches_match, build, groups_of
from tests.support.tiny_recent import ALL


@pytest.mark.parametrize("name", ALL)
def test_parameters_and_caches_are_transformers_own(name: str) -> None:
    config = ALL[name]
    if config.get("zero_expert_num"):  # the class allots them weights, checkpoints have none
        config = config | {"zero_expert_num": 0}
    model = build(config)
    spec = read_model(config, name)
    assert groups_of(spec) == parameter_groups(model)
    assert_caches_match(model, spec)
