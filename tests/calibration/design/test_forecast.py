"""How long a configuration takes, by the unquantized model's own speed and a clock."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvpareto.calibration.design.time_estimate import forecast
from kvpareto.calibration.measure.bench import Bench
from kvpareto.calibration.measure.trial import Speed

OPENING, FIRST_TOKEN, NEXT_TOKEN, WINDOWS = 7.0, 0.5, 0.02, 6
ANSWERS = {"needle": 10, "variables": 30}
AT_ONCE = 8


class MadeUpBench:
    """Opens in OPENING seconds of a clock that stands still otherwise; at 2,048 tokens it has room
    for one task alone, and the first token takes as long as at 1,024."""

    def __init__(self) -> None:
        self.now, self.at_once = 50.0, AT_ONCE
        answers = SimpleNamespace(windows=WINDOWS)
        self.prompts = SimpleNamespace(
            material=answers, answer_tokens=lambda name, context: ANSWERS[name]
        )

    def fitting_tasks(self, context: int) -> list[str]:
        return ["needle", "variables"] if context == 1024 else ["variables"]

    def open(self, config: object, context: int) -> "MadeUpBench":
        return self

    def __enter__(self) -> "MadeUpBench":
        self.now += OPENING
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def speed(self) -> Speed:
        return Speed(FIRST_TOKEN, NEXT_TOKEN)


def test_a_forecast_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = MadeUpBench()
    monkeypatch.setattr(time, "monotonic", lambda: bench.now)
    found = forecast(cast(Bench, cast(Any, bench)), (1024, 2048))
    both, one = found.parts[1024], found.parts[2048]
    # opened once; two models read the text's windows
    assert both.fixed == one.fixed == OPENING + 2 * WINDOWS * FIRST_TOKEN
    assert both.per_item == pytest.approx(2 * FIRST_TOKEN + (10 + 30) * NEXT_TOKEN / AT_ONCE)
    assert one.per_item == pytest.approx(FIRST_TOKEN + 30 * NEXT_TOKEN / AT_ONCE)
    assert (both.rows, one.rows) == (3, 2)
    assert found.per_token == FIRST_TOKEN / 1024
    assert found.seconds(8, (1024, 2048)) == pytest.approx(
        both.fixed + one.fixed + 8 * (both.per_item + one.per_item)
    )
