"""A kind's misfit adds to a model's spread, and is the least that covers its left-out rows."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from kvpareto.calibration.fit.accuracy_rows import AccuracyRow, row_of
from kvpareto.calibration.fit.cross_validation import Collector, with_misfits
from kvpareto.calibration.fit.interval_widths import FEWEST, MISFIT_STEP, kind_misfits
from kvpareto.planner.accuracy.measured_configs import MeasuredRetention
from kvpareto.planner.accuracy.predict import predict, published
from kvpareto.planner.formats.configuration import Configuration
from tests.support.accuracy_specs import LLAMA31_8B, UNSEEN_BIASED, spec_of

Z = 0.6
CONFIG = Configuration.parse("w16a16-k4v4-g64")
ROW = row_of(CONFIG, "own:x", "doc", "reading", 4096, MeasuredRetention(0.95, 0.0))


def log_noise_below(model: str, misfit: float) -> float:
    """By how much log noise the lower end of reading lies beyond the prediction, over z."""
    predictor = with_misfits(published(), {"reading": misfit})
    task = predict(spec_of(model), CONFIG, 4096, predictor).tasks["reading"]
    gamma = predictor.gamma * np.exp(predictor.payload["kind_shapes"]["reading"]["steepness"])
    floor = predictor.payload["kind_shapes"]["reading"]["floor"]
    odds = [np.log(1 / ((kept - floor) / (1 - floor)) - 1) for kept in (task.low, task.retention)]
    return float((odds[0] - odds[1]) / gamma / predictor.payload["z"]["unseen"])


def test_a_misfit_adds_to_a_model_s_spread_and_does_not_multiply_it() -> None:
    """Both are log noise: a misfit of 3 gives a model that is known to 1 all of 3, and one whose
    key biases are known to 5 hardly more than that. A factor would have made 15 of it."""
    known, strange = (
        [log_noise_below(model, misfit) for misfit in (0.0, 3.0)]
        for model in (LLAMA31_8B, UNSEEN_BIASED)
    )
    assert known[1] - known[0] > 1.5
    assert 0 < strange[1] - strange[0] < 1.0


class LeftOut(Collector):
    """Left-out rows, each held from a misfit of its own on."""

    def __init__(self, rows: list[AccuracyRow], from_misfit: list[float]) -> None:
        self.rows, self.from_misfit = rows, from_misfit

    def covered(self, z: float, misfits: Mapping[str, float]) -> dict[int, bool]:
        assert z == Z
        needed = zip(self.rows, self.from_misfit, strict=True)
        return {i: misfits[row.kind] >= least - 1e-9 for i, (row, least) in enumerate(needed)}


@pytest.mark.parametrize(
    ("outside", "wanted"),
    [
        pytest.param([], 0.0, id="all are held"),
        pytest.param([1.0] * 2, 0.0, id="nine tenths are held"),
        pytest.param([1.0] * 3, 1.0, id="one too many is not"),
        pytest.param([0.5, 1.3, 1.3, 9.0], 1.375, id="the next step that holds enough"),
    ],
)
def test_the_misfit_is_the_least_that_covers_nine_tenths(
    outside: list[float], wanted: float
) -> None:
    held = [0.0] * (FEWEST - len(outside))
    left_out = LeftOut([ROW] * FEWEST, held + outside)
    assert kind_misfits(left_out, Z) == {"reading": wanted}
    assert wanted % MISFIT_STEP == 0


def test_three_quarters_of_the_rows_that_lose_a_tenth_are_covered() -> None:
    fallen = replace(ROW, retention=0.8)
    rows, needed = [ROW] * 80 + [fallen] * FEWEST, [0.0] * 94 + [2.0] * 6
    assert kind_misfits(LeftOut(rows, needed), Z) == {"reading": 2.0}
    assert kind_misfits(LeftOut(rows, [0.0] * 95 + [2.0] * 5), Z)["reading"] == 0.0


def test_few_rows_of_a_kind_say_nothing_of_it() -> None:
    left_out = LeftOut([ROW] * (FEWEST - 1), [4.0] * (FEWEST - 1))
    assert kind_misfits(left_out, Z) == {}
