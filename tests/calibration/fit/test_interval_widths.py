"""A kind's misfit adds to a model's spread, and is the least that covers its left-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvpareto.calibration.fit import interval_widths
from kvpareto.calibration.fit.accuracy_rows import AccuracyRow, row_of
from kvpareto.calibration.fit.cross_validation import Collector, Misfit, Misfits, with_misfits
from kvpareto.calibration.fit.interval_widths import (
    FEWEST,
    MISFIT_STEP,
    OWN,
    STRANGER,
    WEIGHTS_STEP,
    hold_out_sources,
    kind_misfits,
    source_misfit,
)
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.fit.published import FOLDER, read_models
from kvpareto.calibration.fit.published_sources import origin
from kvpareto.calibration.grid.evaluate import FEATURES
from kvpareto.planner.accuracy.measured_configs import MeasuredRetention
from kvpareto.planner.accuracy.predict import predict, published
from kvpareto.planner.accuracy.predictor import Predictor
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

    def covered(
        self, z: float | None, misfits: Misfits, between_sources: float = 0.0
    ) -> dict[int, bool]:
        assert z in (Z, None)  # sources: of each prediction's own z
        needed = zip(self.rows, self.from_misfit, strict=True)
        return {
            i: max(between_sources, self._given(row, misfits.get(row.kind, Misfit())))
            >= least - 1e-9
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


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("arXiv:2502.15075v3 Table 9 (HQQ channel-wise)", "arXiv:2502.15075"),
        ("QuaRot, as arXiv:2504.04823 Table 1 has it", "arXiv:2504.04823"),
        ("thu-nics/qllm-eval@6d047af:qllm_eval/visualization/mmlu_w.txt", "thu-nics/qllm-eval"),
        ("vllm-project/vllm#40633 (JartX, 2026-04-24)", "vllm-project/vllm"),
        ("RedHatAI model card phi-4-quantized.w4a16 (a/b@1:c)", "RedHatAI"),
        ("a/b#2606 (W4A16); baseline from RedHatAI", "a/b"),
        ("https://example.com/datasets/a/b c.md", "https://example.com/datasets/a/b"),
        ("HF blog kv-cache-quantization.md (g64/r128)", "HF blog kv-cache-quantization.md"),
        ("stored text 66701634847 (reproduction of KIVI)", "stored text 66701634847"),
    ],
)
def test_the_origin_of_a_row_is_who_ran_its_table(source: str, wanted: str) -> None:
    assert origin(source) == wanted


def of_sources(*needed: Sequence[float], retention: float = 0.95) -> tuple[list[AccuracyRow], ...]:
    """Rows of reading from sources of their own, one for each of `needed`."""
    return tuple(
        [replace(ROW, source=f"paper/{i}", retention=retention)] * len(each)
        for i, each in enumerate(needed)
    )


@pytest.mark.parametrize(
    ("needed", "retention", "wanted"),
    [
        # of 20 sources alike .945 must be held, of 18 .95
        pytest.param([[0.0] * 19 + [2.0]] * 20, 0.95, 0.0, id="rows and sources"),
        pytest.param([[0.0] * 90] * 19 + [[1.3] * 2], 0.95, 0.0, id="a source of twenty is not"),
        pytest.param([[0.0] * 90] * 17 + [[1.3] * 2], 0.95, 1.375, id="one of eighteen is asked"),
        pytest.param([[0.0]] * 19 + [[2.0] * 5], 0.95, 2.0, id="sources, but not rows"),
        pytest.param([[0.0] * 9 + [1.0]] * 20, 0.95, 1.0, id="nine tenths of every source"),
        pytest.param([[0.0] * 9 + [1.0]] * 20, 0.5, 1.0, id="all of them fallen"),
        pytest.param([[9.0] * 20], 0.95, 4.0, id="the widest that is given"),
    ],
)
def test_the_misfit_between_sources_covers_rows_and_sources(
    needed: list[list[float]], retention: float, wanted: float
) -> None:
    rows = [row for each in of_sources(*needed, retention=retention) for row in each]
    flat = [one for each in needed for one in each]
    assert source_misfit(LeftOut(rows, flat), {}) == wanted


def test_four_fifths_of_a_source_s_fallen_rows_are_covered() -> None:
    """Of all rows nine tenths are anyway, and by sources alike one more is missed; weights alone
    have no say."""

    def found(missed: int, more: Sequence[float] = ()) -> float:
        rows, needed = [], []
        for i in range(20):
            fallen = replace(ROW, source=f"paper/{i}", retention=0.8)
            rows += [replace(fallen, retention=0.95)] * 90 + [fallen] * 10
            needed += [0.0] * 98 + [0.0 if i >= missed else 1.5] * 2
        rows, needed = rows + [FOUR] * len(more), needed + list(more)
        return source_misfit(LeftOut(rows, needed), {})

    assert found(20) == 1.5  # 8 of 10 in each: with one source more .76
    assert found(17) == 1.5  # .83: .79
    assert found(16) == found(16, [3.0] * 9) == 0.0  # .84: .80


def test_a_source_is_left_out_with_all_of_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model's rows in other sources stay, and are what the prediction rests on."""
    models = {m.key: m for m in map(KnownModel.read, read_models(FOLDER / "models.csv"))}
    llama, stranger = "llama-3.1-8b", "internlm2-7b"
    tables = ["a/b: one", "a/b: two", "c/d", "c/d"]
    keys = [llama, stranger, llama, stranger]
    rows = [replace(ROW, model=m, source=s) for m, s in zip(keys, tables, strict=True)]
    asked: list[tuple[int, ...]] = []

    def without(
        out: Sequence[int], rows: Sequence[AccuracyRow], known: object, *rest: object
    ) -> Predictor:
        asked.append(tuple(out))
        left = {m: line for m, line in published().payload["models"].items() if m == llama}
        return Predictor({**published().payload, "models": left, "z": rest[-1]})

    monkeypatch.setattr(interval_widths, "without", without)
    z: Mapping[str, float] = {"unseen": 0.7, "known": 0.4}
    collected, bases = hold_out_sources(rows, models, Path(), {}, z)
    assert asked == [(0, 1), (2, 3)]
    assert bases == (OWN, STRANGER, OWN, STRANGER)
    low, middle, high = collected.foreseen(None, {})
    assert (low < middle).all()
    assert (middle < high).all()
    held = collected.covered(None, {})
    assert held == collected.covered(None, {}, 0.0)
    wide = collected.foreseen(None, {}, 3.0)
    assert (wide[0] < low).all()
    assert wide[1] == pytest.approx(middle)
