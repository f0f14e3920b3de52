"""Thousands of broken configs and arguments against the planner.

    python -m pytest -m slow -s tests/stress/test_broken_configs.py

A case goes to the planner's functions (read the config, estimate under every engine), or through
the whole command line (`plan` and `estimate`), in this process. Every case must be planned or
refused with one line. `make_case(seed)` in tests/support/fuzz_mutations.py gives a case again.
"""

import traceback
from collections import Counter
from pathlib import Path

import pytest

from tests.support.fuzz_mutations import TooSlow, command_outcome, make_case, outcome_of

CASES = 5000


@pytest.mark.slow
@pytest.mark.parametrize("commands", [False, True], ids=["functions", "commands"])
def test_every_broken_config_is_planned_or_refused(commands: bool, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    failures: dict[str, list[int]] = {}
    for seed in range(CASES):
        try:
            case = make_case(seed)
            outcomes[command_outcome(case, tmp_path) if commands else outcome_of(case)] += 1
        except (Exception, TooSlow) as error:
            frame = traceback.extract_tb(error.__traceback__)[
                -3 if isinstance(error, TooSlow) else -1
            ]
            where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"
            failures.setdefault(where[:160], []).append(seed)
    for outcome, count in outcomes.most_common():
        print(f"{count:6d}  {outcome}")
    assert not failures
