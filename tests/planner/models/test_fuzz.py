"""Whatever is in a config.json or on the command line: a plan, or one line that says what is wrong.

A sample of what tests/stress/test_broken_configs.py runs by the thousand, and values that
hypothesis thinks of.
"""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fuzz_mutations import (
    Case,
    TooSlow,
    command_outcome,
    make_case,
    outcome_of,
    seed_configs,
)

GOOD = {"config": "w4a16-k4v4-g64+pc256", "context": "4096", "output": "64", "batch": "1"}
OUTCOMES = {"planned", "BadConfig", "BadInput"}

# Floats and integers of every size, text of every alphabet, containers of all of them.
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def _case(config: dict[str, object]) -> Case:
    return Case(json.dumps(config).encode(), budget="12GB", **GOOD)


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_mutated_cases_are_planned_or_refused(first: int) -> None:
    found = {outcome_of(make_case(seed)) for seed in range(first, first + 50)}
    assert found <= OUTCOMES
    assert len(found) > 1


@pytest.mark.parametrize("first", range(10_000, 10_040, 10))
def test_the_command_line_fails_politely(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        assert command_outcome(make_case(seed), tmp_path) in {"exit 0", "exit 1", "exit 2"}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_field(data: st.DataObject) -> None:
    config = dict(data.draw(st.sampled_from(seed_configs())))
    for field in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[field] = data.draw(_values)
    assert outcome_of(_case(config)) in OUTCOMES


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    case = Case(content, budget="12GB", **GOOD)
    assert outcome_of(case) in {"BadConfig", "BadInput"}


@settings(max_examples=120, deadline=None)
@given(
    config=st.text(max_size=40) | st.from_regex(r"w\d{1,2}a16-k\d{1,2}v\d{1,2}[-+a-z0-9{},:]*"),
    context=st.text(max_size=12) | st.integers().map(str),
)
def test_any_arguments(config: str, context: str) -> None:
    data = json.dumps(seed_configs()[0]).encode()
    case = Case(data, config, context, output="64", batch="1", budget="12GB")
    assert outcome_of(case) in OUTCOMES


def test_seeds_cover_the_families() -> None:
    assert len({config["model_type"] for config in seed_configs()}) >= 30


def test_unmutated_seeds_are_planned() -> None:
    plain = {**GOOD, "config": "w16a16-k8v8"}
    refused = []
    for config in seed_configs():
        if "quantization_config" not in json.dumps(config):
            case = Case(json.dumps(config).encode(), budget="12GB", **plain)
            if outcome_of(case) != "planned":
                refused.append(config["model_type"])
    assert refused == []


def test_the_checker_notices_a_hang_and_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(1)
    monkeypatch.setattr("kvpareto.planner.units.parse_bytes", lambda text: 1)

    def spin(*_: object) -> None:
        while True:
            pass

    monkeypatch.setitem(outcome_of.__globals__, "parse_bytes", spin)
    with pytest.raises(TooSlow):
        outcome_of(case, seconds=1)
    monkeypatch.setitem(outcome_of.__globals__, "parse_bytes", lambda text: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        outcome_of(case)
