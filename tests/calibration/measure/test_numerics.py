"""Values that may be rounding, or nothing at all: no sign is assumed, nothing divides by them."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from kvpareto.calibration.design.next_run import Candidates, Measurement, Posterior, choose
from kvpareto.calibration.fit.accuracy_rows import AccuracyRow, row_of
from kvpareto.calibration.fit.collapse import breaking_context, broken_configurations
from kvpareto.calibration.fit.cross_validation import Z_GRID, HeldOut
from kvpareto.calibration.fit.interval_widths import conformal_z
from kvpareto.calibration.fit.leave_out import SHIFTS, LeftOut
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.fit.profile import fit_profile, to_row
from kvpareto.calibration.measure.early_stopping import MOST_KEPT, is_lost, retention_error
from kvpareto.calibration.measure.layer_sensitivity import Sensitivity
from kvpareto.calibration.records.record_file import DIVERGENCE, LAYERS, Record
from kvpareto.calibration.tasks.fit_length import largest
from kvpareto.calibration.tasks.scores import Score, paired
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.accuracy.calibration_files.check import check_payload
from kvpareto.planner.accuracy.interval import LEVEL
from kvpareto.planner.accuracy.measured_configs import MeasuredRetention
from kvpareto.planner.accuracy.retention import OutlierLayers, protected_shares
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import ModelSpec
from tests.support.record_writer import row

LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)


def kept(retention: float, sd: float) -> Record:
    return row(0, task=DIVERGENCE, retention=retention, retention_sd=sd)


@pytest.mark.parametrize(
    ("retention", "sd", "lost"),
    [
        # at two standard errors in its favour, e^(2 sd / r) r: 0.4 e^0.4 = 0.597, 0.4 e^0.2 = 0.489
        (0.4, 0.08, False),
        (0.4, 0.04, True),
        (0.49, 0.0, True),
        (0.5, 0.0, False),
        (1.2, 0.0, False),
        (0.0, 0.0, True),
        (5e-324, 1.0, False),  # 1 / 5e-324 overflows: nothing is known
        (1e-300, 0.0, True),
        (1e304, 0.0, False),
    ],
)
def test_the_text_is_lost_two_standard_errors_below_half(
    retention: float, sd: float, lost: bool
) -> None:
    assert is_lost(kept(retention, sd)) is lost


def test_without_a_divergence_nothing_is_lost() -> None:
    assert not is_lost(None)
    assert not is_lost(row(0, task=DIVERGENCE))


def test_few_items_know_no_better_than_their_number() -> None:
    assert retention_error(0.0, 8) == 0.1  # 1 / (8 + 2)
    assert retention_error(0.3, 8) == 0.3
    assert retention_error(0.0, 998) == 0.001
    assert retention_error(None, 8) is None


@pytest.mark.parametrize("values", [(1.0,) * 5, (0.0,) * 5, (0.25,), (1e-300, 0.0)], ids=str)
def test_scores_that_do_not_vary_pair_finitely(values: tuple[float, ...]) -> None:
    score = Score.of(values)
    pair = paired(score, score)
    assert pair.difference == 0
    assert pair.stderr >= 0
    if score.value:
        assert pair.retention == 1
        assert pair.retention_stderr is not None
        assert math.isfinite(pair.retention_stderr)
    else:
        assert pair.retention is None
    low, high = score.interval()
    assert 0 <= low <= score.value <= high <= 1


ROW = row_of(
    Configuration(k_bits=4, v_bits=4),
    "own:x",
    "needle",
    "retrieval",
    4096,
    MeasuredRetention(0.9, 0.0),
)
FEATURES = accuracy.published().models.of(LLAMA).features
MODELS = {"own:x": KnownModel("own:x", FEATURES, ("x",), (4096, 32, 8))}


def held_out(needed: Sequence[float]) -> HeldOut:
    """Rows whose scores lie 0.4 below the prediction, with intervals that reach them at these z."""
    count = len(needed)
    rows: list[AccuracyRow] = [ROW] * count
    low = np.where(np.array(needed) <= Z_GRID[:, None] + 1e-9, 0.4, 0.99)
    return HeldOut(
        tuple(rows),
        np.full(count, 0.99),
        np.full(count, 0.99),
        np.stack([low, np.full_like(low, 0.995)]),
    )


def test_the_conformal_quantile_is_that_of_one_row_more() -> None:
    # 9 of 10 rows need less than the widest: level 0.9 of n = 9 asks for rank ceil(0.9 x 10) = 9
    assert LEVEL == 0.9
    needs = [0.1 * i for i in range(1, 10)]
    assert conformal_z(held_out(needs), MODELS) == pytest.approx(0.9)  # of 9: the largest
    needs = [0.1 * i for i in range(1, 20)]
    assert conformal_z(held_out(needs), MODELS) == pytest.approx(1.8)  # of 19: the 18th
    needs = [0.1 * i for i in range(1, 21)]
    assert conformal_z(held_out(needs), MODELS) == pytest.approx(1.9)  # of 20: 18.9, the 19th


def test_weights_that_lose_little_do_not_make_a_cache_s_interval_narrower() -> None:
    found = held_out([1.5] * 9 + [0.1] * 91)
    weights = replace(ROW, k_bits=16.0, v_bits=16.0, weight_bits=4)
    assert conformal_z(found, MODELS) == pytest.approx(0.1)  # all of one cache
    found = replace(found, rows=(ROW,) * 9 + (weights,) * 91)
    assert conformal_z(found, MODELS) == pytest.approx(1.5)


def test_a_shift_is_the_quantile_of_one_row_more() -> None:
    def shift(*needed: float) -> float:
        values = np.array(needed)
        return LeftOut(values, values, values, ("retrieval",) * len(values)).shift

    assert shift(*np.arange(1, 10) / 10) == 0.9  # of 9: ceil(0.9 x 10), the last
    assert shift(*np.arange(1, 20) / 10) == 1.8
    assert shift(*np.arange(1, 22) / 10) == 2.0  # of 21: ceil(19.8), the 20th


def test_rows_that_no_interval_holds_widen_it_to_the_widest_and_are_not_covered() -> None:
    found = held_out([0.1] * 5 + [math.inf] * 5)
    z = conformal_z(found, MODELS)
    assert z == Z_GRID[-1] == 8.0
    assert found.covered(z).sum() == 5
    assert conformal_z(held_out([0.1] * 30 + [math.inf]), MODELS) == pytest.approx(0.1)
    needed = np.array([0.5, math.inf, math.inf])
    left = LeftOut(np.zeros(3), np.zeros(3), needed, ("retrieval",) * 3)
    assert left.shift == SHIFTS[-1]
    assert left.coverage == pytest.approx(1 / 3)


def test_a_probes_rounding_is_no_share() -> None:
    noisy = row(0, task=LAYERS, items=(-1e-9, 2e-9, 2e-9, -3e-9, 0.0, -1e-12))
    found = Sensitivity.of([noisy])
    assert found == Sensitivity((0.0, 2e-9, 2e-9), (0.0, 0.0, 0.0))
    assert found.payload()["keys"] == [0.0, 0.5, 0.5]
    nothing = Sensitivity((0.0,) * 3, (0.0,) * 3)
    assert nothing.payload() == {"keys": [0.0] * 3, "values": [0.0] * 3, "protect": []}
    assert nothing.carried((0,)) == 0.0


@pytest.mark.parametrize(
    "known",
    [
        OutlierLayers(),
        OutlierLayers((0, 2), 0.7),
        OutlierLayers(keys=(0.333334,) * 3, values=(0.5, 0.5, 0.000001)),
    ],
    ids=["unknown", "named", "probed"],
)
def test_all_layers_protected_leave_no_negative_noise(known: OutlierLayers) -> None:
    shares = protected_shares(known, 3, (0, 1, 2))
    for share in (shares.plain, shares.outlier, shares.value):
        assert share == pytest.approx(1.0, abs=1e-5)
        assert share <= 1.0


def test_a_chance_gain_is_bounded_and_a_loss_ends_at_nothing() -> None:
    assert MOST_KEPT == 10
    found = [to_row(row(0, retention=r, retention_sd=0.1), "x") for r in (1e304, -0.5, 0.4)]
    assert [one.retention for one in found if one] == [10, 0, 0.4]


def made(config: str, retention: float | None, sd: float, **changes: object) -> Record:
    values = {"config": config, "context": 4096, "retention": retention, "retention_sd": sd}
    return row(0, **(values | changes))


def profile(records: Sequence[Record], spec: ModelSpec = LLAMA) -> dict[str, object]:
    found = fit_profile(spec, records)
    assert found is not None
    check_payload(found)
    json.dumps(found, allow_nan=False)
    return found


EIGHT, FOUR, TWO = "w16a16-k8v8", "w16a16-k4v4", "w16a16-k2v2"


@pytest.mark.usefixtures("few_published_rows")
@pytest.mark.parametrize(
    "records",
    [
        [made(EIGHT, 0.0, 0.0), made(FOUR, 1.0, 0.0), made(TWO, 1.0, 0.0)],
        [made(c, 0.0, 0.0) for c in (EIGHT, FOUR, TWO)],
        [made(c, 1.0, 0.0) for c in (EIGHT, FOUR, TWO)],
        [made(FOUR, 0.5, 0.1)],
        [made(EIGHT, 1e304, 0.0, task=DIVERGENCE, kind="perplexity"), made(FOUR, 0.0, 1e9)],
    ],
    ids=["eight-bits-collapsed", "all-collapsed", "all-whole", "one", "absurd"],
)
def test_whatever_was_measured_gives_a_profile_that_can_be_used(records: list[Record]) -> None:
    found = profile(records)
    assert found["z"]["known"] <= Z_GRID[-1]  # type: ignore[index]


def test_no_rows_are_no_break() -> None:
    assert broken_configurations([]) == []
    plain = row(0, config="w16a16-k16v16", score=0.0)
    assert breaking_context([plain, plain.model_copy(update={"context": 8192})]) is None


def test_beliefs_take_any_measurement() -> None:
    ones = np.ones(3)
    candidates = Candidates(
        np.arange(3), np.zeros((3, 2)), 0.9 * ones, 0.9 * ones, 0.9 * ones
    )  # an interval of no width
    for found in (Measurement(0.0, 0.0), Measurement(1.0, 0.0), Measurement(1e304, 1e9)):
        beliefs = Posterior(candidates, {0: found})
        assert np.isfinite(beliefs.retention).all()
        assert math.isfinite(choose(beliefs, np.random.default_rng(0)).expected_error)


@pytest.mark.parametrize(
    "tokens_of", [lambda n: 0, lambda n: 3, lambda n: n // 500], ids=["none", "three", "few"]
)
def test_filler_that_is_no_tokens_ends_the_search(tokens_of: object) -> None:
    with pytest.raises(BadInput, match="this tokenizer makes"):
        largest(tokens_of, 256)  # type: ignore[arg-type]
    assert 5 + largest(lambda n: 5 + n // 3, 256) // 3 == 256
