"""A kind's misfit adds to a model's spread, and is the least that covers its left-out rows."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.calibration.fit.accuracy_rows import AccuracyRow, row_of
from kvpareto.calibration.fit.cross_validation import Collector, Misfit, Misfits, with_misfits
from kvpareto.calibration.fit.interval_widths import (
    FEWEST,
    MISFIT_STEP,
    WEIGHTS_STEP,
    kind_misfits,
)
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.grid.evaluate import FEATURES
from kvpareto.planner.accuracy.measured_configs import MeasuredRetention
from kvpareto.planner.accuracy.predict import predict, published
from kvpareto.planner.formats.configuration import Configuration
from tests.support.accuracy_specs import LLAMA31_8B, UNSEEN_BIASED, spec_of

Z = 0.6
CONFIG = Configuration.parse("w16a16-k4v4-g64")
ROW = row_of(CONFIG, "own:x", "doc", "reading", 4096, MeasuredRetention(0.95, 0.0))


def log_noise_below(model: str, misfit: float) -> float:
    """By how much log noise the lower end of reading lies beyond the prediction, over z."""
    predictor = with_misfits(published(), {"reading": Misfit(misfit)})
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
        keys = dict.fromkeys(row.model for row in rows)
        self.models = {key: KnownModel(key, FEATURES, (), (i, 1, 1)) for i, key in enumerate(keys)}

    def covered(self, z: float, misfits: Misfits) -> dict[int, bool]:
        assert z == Z
        needed = zip(self.rows, self.from_misfit, strict=True)
        return {
            i: self._given(row, misfits.get(row.kind, Misfit())) >= least - 1e-9
            for i, (row, least) in enumerate(needed)
        }

    @staticmethod
    def _given(row: AccuracyRow, misfit: Misfit) -> float:
        return misfit.cache if row.k_bits < 16 else misfit.weights


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
    assert kind_misfits(left_out, Z) == {"reading": Misfit(wanted)}
    assert wanted % MISFIT_STEP == 0


def test_three_quarters_of_the_rows_that_lose_a_tenth_are_covered() -> None:
    fallen = replace(ROW, retention=0.8)
    rows, needed = [ROW] * 80 + [fallen] * FEWEST, [0.0] * 94 + [2.0] * 6
    assert kind_misfits(LeftOut(rows, needed), Z) == {"reading": Misfit(2.0)}
    assert kind_misfits(LeftOut(rows, [0.0] * 95 + [2.0] * 5), Z)["reading"] == Misfit()


def test_few_rows_of_a_kind_say_nothing_of_it() -> None:
    left_out = LeftOut([ROW] * (FEWEST - 1), [4.0] * (FEWEST - 1))
    assert kind_misfits(left_out, Z) == {}


FOUR = replace(ROW, k_bits=16.0, v_bits=16.0, weight_bits=4.0)


def test_weights_have_a_misfit_of_their_own() -> None:
    """Nine tenths of a kind's rows of 4-bit weights; 8 bits and caches say nothing of it."""
    reasoning, eight = replace(FOUR, kind="reasoning"), replace(FOUR, weight_bits=8.0)
    rows = [FOUR] * FEWEST + [reasoning] * FEWEST + [eight] * FEWEST + [ROW] * FEWEST
    needed = [0.0] * FEWEST + [0.0] * (FEWEST - 3) + [0.05] * 3 + [9.0] * FEWEST + [0.0] * FEWEST
    found = kind_misfits(LeftOut(rows, needed), Z)
    assert found["reading"] == Misfit()
    assert found["reasoning"].weights == pytest.approx(5 * WEIGHTS_STEP)
    # long chains of reasoning, of which there are few rows, are as reasoning
    assert found["long_reasoning"] == found["reasoning"]


def test_many_models_say_what_one_in_twenty_loses() -> None:
    """Of as many models as rows, 38 of 40 are held; of one model, nine tenths are enough."""
    needed = [0.0] * 37 + [0.05] * 3
    of_one, of_many = [FOUR] * 40, [replace(FOUR, model=f"model {i}") for i in range(40)]
    assert kind_misfits(LeftOut(of_one, needed), Z)["reading"].weights == 0.0
    found = kind_misfits(LeftOut(of_many, needed), Z)["reading"].weights
    assert found == pytest.approx(5 * WEIGHTS_STEP)


def test_the_lower_end_of_4_bit_weights_allows_for_it() -> None:
    """By hand: z 0.65 times 0.1 of retention beside what the spread of log noise allows; nothing
    above, hardly anything of 8 bits, nothing of the cache."""
    z = published().payload["z"]["unseen"]

    def ends(text: str, misfit: float) -> tuple[float, float, float]:
        predictor = with_misfits(published(), {"reading": Misfit(weights=misfit)})
        task = predict(spec_of(UNSEEN_BIASED), Configuration.parse(text), 4096, predictor).tasks[
            "reading"
        ]
        return task.low, task.retention, task.high

    before, after = ends("w4a16-k16v16", 0.0), ends("w4a16-k16v16", 0.1)
    assert after[1:] == before[1:]
    floor = published().payload["kind_shapes"]["reading"]["floor"]
    gap = np.hypot(before[1] - before[0], (1 - floor) * z * 0.1)
    assert after[1] - after[0] == pytest.approx(gap, abs=1e-6)
    assert ends("w8a16-k16v16", 0.0)[0] - ends("w8a16-k16v16", 0.1)[0] < 0.003
    assert ends("w16a16-k4v4-g64", 0.1) == ends("w16a16-k4v4-g64", 0.0)
