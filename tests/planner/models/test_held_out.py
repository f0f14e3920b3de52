"""Families hidden from the registry: the fallback's bounds hold the truth, or it names a key."""

import json

import pytest

from tests.support.oracle.held_out import MODELS, as_saved, bundled, compare, has_sister
from tests.support.tiny_configs import CONFIGS

BUNDLED = bundled()
GRANITE = MODELS.parent / "vllm" / "granite-4.0-h-tiny.json"
"""Of all it is the one whose layers keep the most of a chunk beside what plain ones keep."""
ALL = {
    "granite": json.loads(GRANITE.read_text("utf-8")),
    **BUNDLED,
    **{name: as_saved(name, config) for name, config in CONFIGS.items()},
}
WITH_SISTERS = [name for name, config in ALL.items() if has_sister(config)]


@pytest.mark.parametrize("name", ALL)
def test_the_truth_is_within_bounds(name: str) -> None:
    outcome, wrong = compare(name, ALL[name])
    assert outcome != "wrong", wrong


@pytest.mark.parametrize("name", WITH_SISTERS)
def test_a_sister_family_is_right_or_not_taken(name: str) -> None:
    outcome, wrong = compare(name, ALL[name], all_hidden=False)
    assert outcome != "wrong", wrong


def test_plain_models_stay_tight_and_few_are_refused() -> None:
    outcomes = [compare(name, config)[0] for name, config in BUNDLED.items()]
    assert outcomes.count("exact") >= 45
    assert outcomes.count("refused") <= 20
